//! Which images a key of a credentials file is for.
//!
//! Spec: kubelet's `credentialprovider`: `[http[s]://]HOST[:PORT][/PATH]`, where each label of the host may be a glob,
//! as many labels as the image's host has; the port must be the same, and the path a prefix of the repository's. A path
//! `/v1/` or `/v2/` is that of the registry's API and says nothing.

/// What a key says, in order from the least to the most exact as kubelet sorts them: by text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    text: String,
    host_len: usize,
}

impl Key {
    /// Reads a key; `None` for one that can match nothing.
    pub(super) fn parse(key: &str) -> Option<Self> {
        let bare = key.strip_prefix("https://");
        let bare = bare.or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = bare.find('/').map_or((bare, ""), |at| bare.split_at(at));
        let of_api = path.starts_with("/v1/") || path.starts_with("/v2/");
        let path = if of_api {
            path.get(3..).unwrap_or_default()
        } else {
            path
        };
        let path = if path == "/" { "" } else { path };
        (!host.is_empty()).then(|| Self {
            text: format!("{host}{path}"),
            host_len: host.len(),
        })
    }

    fn split(&self) -> (&str, &str) {
        self.text.split_at(self.host_len)
    }

    pub(super) fn matches(&self, registry: &str, repository: &str) -> bool {
        let (host, path) = self.split();
        let (own_name, own_port) = split_port(host);
        let (name, port) = split_port(registry);
        own_port == port
            && own_name.split('.').count() == name.split('.').count()
            && own_name
                .split('.')
                .zip(name.split('.'))
                .all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
            && format!("/{repository}").starts_with(path)
    }

    pub(super) fn is_docker_hub(&self) -> bool {
        self.split() == ("index.docker.io", "")
    }
}

fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    };
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    // Brackets around an address are no set of characters.
    let address = inner.filter(|inner| inner.contains(':'));
    (address.unwrap_or(name), port)
}

/// `*` is any run of characters, `?` one, `[a-c]` and `[^a-c]` one of a set, `\` takes the next as it is; as Go's
/// `path.Match`. A malformed pattern matches nothing.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last star does not match: the star takes one character more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut text) = (pattern, text);
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (one(pattern, text.first().copied()), text) {
            (Some(rest), [_, after @ ..]) => (pattern, text) = (rest, after),
            _ if pattern.is_empty() && text.is_empty() => return true,
            _ => {
                let Some((rest, [_, after @ ..])) = retry else {
                    return false;
                };
                retry = Some((rest, after));
                (pattern, text) = (rest, after);
            }
        }
    }
}

/// The pattern after its first element, if that matches the character.
fn one(pattern: &[u8], character: Option<u8>) -> Option<&[u8]> {
    let character = character?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => set(rest, character),
        [b'\\', escaped, rest @ ..] => (*escaped == character).then_some(rest),
        [plain, rest @ ..] => (*plain == character).then_some(rest),
        [] => None,
    }
}

fn set(pattern: &[u8], character: u8) -> Option<&[u8]> {
    let end = pattern.iter().position(|byte| *byte == b']')?;
    let (members, rest) = pattern.split_at_checked(end)?;
    let (members, negated) = match members {
        [b'^', members @ ..] => (members, true),
        members => (members, false),
    };
    let mut open = members;
    let mut is_in = false;
    while let [low, tail @ ..] = open {
        (is_in, open) = match tail {
            [b'-', high, tail @ ..] => (is_in || (*low..=*high).contains(&character), tail),
            tail => (is_in || *low == character, tail),
        };
    }
    (!members.is_empty() && is_in != negated)
        .then(|| rest.get(1..))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_as_kubelets_do() {
        let cases = [
            ("r.io", "r.io", "a/b", true),
            ("https://r.io", "r.io", "a/b", true),
            ("http://r.io/v2/", "r.io", "a/b", true),
            ("r.io/v1/", "r.io", "a/b", true),
            ("r.io:443", "r.io", "a/b", false),
            ("r.io", "r.io:5000", "a/b", false),
            ("r.io:5000", "r.io:5000", "a/b", true),
            ("r.io/a", "r.io", "a/b", true),
            ("r.io/a/b", "r.io", "a/b", true),
            ("r.io/b", "r.io", "a/b", false),
            ("r.io/v1/a", "r.io", "a/b", true),
            ("*.io", "r.io", "a", true),
            ("*.r.io", "r.io", "a", false),
            ("*.r.io", "x.r.io", "a", true),
            ("*", "localhost", "a", true),
            ("*.*.r.io", "y.x.r.io", "a", true),
            ("r?.io", "r1.io", "a", true),
            ("r[0-3].io", "r2.io", "a", true),
            ("r[^0-3].io", "r2.io", "a", false),
            ("r[.io", "r2.io", "a", false),
            ("pre*post.io", "prexyzpost.io", "a", true),
            ("pre*post.io", "prexyz.io", "a", false),
            ("[::1]:5000", "[::1]:5000", "a", true),
            ("127.0.0.1:5000", "127.0.0.1:5000", "a", true),
        ];
        for (key, registry, repository, want) in cases {
            let parsed = Key::parse(key).unwrap();
            let found = parsed.matches(registry, repository);
            assert_eq!(found, want, "{key} for {registry}/{repository}");
        }
        assert_eq!(Key::parse(""), None);
        assert_eq!(Key::parse("https:///v2/"), None);
    }

    #[test]
    fn globs_end_on_hostile_patterns() {
        let pattern = "*a".repeat(200);
        assert!(!glob(pattern.as_bytes(), "a".repeat(150).as_bytes()));
        for pattern in ["[", "[]", "[^", "\\", "[a-", "*[", "***"] {
            glob(pattern.as_bytes(), b"aaa");
        }
        assert!(glob(b"\\*", b"*"));
    }
}
