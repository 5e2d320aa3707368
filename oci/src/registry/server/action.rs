//! What a request's path and query ask for.
//!
//! Repository names hold slashes, so a path is read from its end.

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Version,
    Manifest {
        repository: &'a str,
        reference: &'a str,
    },
    Blob {
        repository: &'a str,
        digest: &'a str,
    },
    NewUpload {
        repository: &'a str,
    },
    Upload {
        repository: &'a str,
        id: &'a str,
    },
    Tags {
        repository: &'a str,
    },
    Referrers {
        repository: &'a str,
        digest: &'a str,
    },
}

impl<'a> Action<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v2")?;
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Some(Self::Version);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Some(Self::Tags { repository });
        }
        let upload = path.strip_suffix('/').unwrap_or(path);
        if let Some(repository) = upload.strip_suffix("/blobs/uploads") {
            return Some(Self::NewUpload { repository });
        }
        let (rest, last) = path.rsplit_once('/')?;
        if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
            let id = last;
            return Some(Self::Upload { repository, id });
        }
        let (repository, part) = rest.rsplit_once('/')?;
        match part {
            "blobs" => Some(Self::Blob {
                repository,
                digest: last,
            }),
            "manifests" => Some(Self::Manifest {
                repository,
                reference: last,
            }),
            "referrers" => Some(Self::Referrers {
                repository,
                digest: last,
            }),
            _ => None,
        }
    }

    pub(super) const fn repository(&self) -> Option<&'a str> {
        match self {
            Self::Version => None,
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::NewUpload { repository }
            | Self::Upload { repository, .. }
            | Self::Referrers { repository, .. }
            | Self::Tags { repository } => Some(repository),
        }
    }
}

/// The value of a query parameter.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    let found = pairs.find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

/// How much of a list is wanted, and what comes after.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    limit: usize,
    last: Option<String>,
}

impl Page {
    /// As `n` and `last` say; at most `most`.
    pub(super) fn of(query: Option<&str>, most: usize) -> Self {
        let limit = query_value(query, "n").and_then(|text| text.parse().ok());
        Self {
            limit: limit.unwrap_or(most).min(most),
            last: query_value(query, "last").filter(|last| !last.is_empty()),
        }
    }

    /// Cuts the page out of names in order; answers the query of the next one, if there is one.
    pub(super) fn cut(&self, names: &mut Vec<String>) -> Option<String> {
        if let Some(last) = &self.last {
            names.retain(|name| name > last);
        }
        let more = names.len() > self.limit;
        names.truncate(self.limit);
        let last = names.last().filter(|_| more)?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("n", &self.limit.to_string());
        Some(query.append_pair("last", last).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_the_action_not_at_slashes_of_the_name() {
        let (repository, digest, reference) = ("a/b", "d", "v1");
        let cases = [
            ("/v2", Some(Action::Version)),
            ("/v2/", Some(Action::Version)),
            (
                "/v2/a/b/manifests/v1",
                Some(Action::Manifest {
                    repository,
                    reference,
                }),
            ),
            (
                "/v2/a/b/c/blobs/d",
                Some(Action::Blob {
                    repository: "a/b/c",
                    digest,
                }),
            ),
            (
                "/v2/a/manifests/manifests/v1",
                Some(Action::Manifest {
                    repository: "a/manifests",
                    reference,
                }),
            ),
            (
                "/v2/a/b/referrers/d",
                Some(Action::Referrers { repository, digest }),
            ),
            (
                "/v2/a/b/blobs/uploads/",
                Some(Action::NewUpload { repository }),
            ),
            (
                "/v2/a/b/blobs/uploads",
                Some(Action::NewUpload { repository }),
            ),
            (
                "/v2/a/b/blobs/uploads/7",
                Some(Action::Upload {
                    repository,
                    id: "7",
                }),
            ),
            ("/v2/a/b/tags/list", Some(Action::Tags { repository })),
            ("/v2/a", None),
            ("/v2/a/b/c", None),
        ];
        for (path, want) in cases {
            assert_eq!(Action::parse(path), want, "{path}");
        }
    }

    #[test]
    fn lists_come_in_pages() {
        let page = |query: &str| {
            let mut names: Vec<_> = ["a", "b", "c", "d"].map(str::to_owned).into();
            let next = Page::of(Some(query), 3).cut(&mut names);
            (names.join(""), next)
        };
        let next = |query: &str| Some(query.to_owned());
        assert_eq!(page(""), ("abc".to_owned(), next("n=3&last=c")));
        assert_eq!(page("n=2"), ("ab".to_owned(), next("n=2&last=b")));
        assert_eq!(page("n=2&last=b"), ("cd".to_owned(), None));
        assert_eq!(page("n=100&last=a"), ("bcd".to_owned(), None));
        assert_eq!(page("n=0"), (String::new(), None));
        assert_eq!(page("last=zz"), (String::new(), None));
        assert_eq!(page("n=x"), ("abc".to_owned(), next("n=3&last=c")));
        assert_eq!(query_value(Some("a=%2F+b&a=2"), "a").unwrap(), "/ b");
    }
}
