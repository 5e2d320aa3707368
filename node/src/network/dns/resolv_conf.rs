//! `resolv.conf`: the host's, as it is read, and what a pod's would say.
//!
//! Limits are those of the C library's resolver.
//!
//! Source: resolv.conf(5).

use std::net::IpAddr;
use std::time::Duration;

/// Servers that are asked; further ones are not.
pub(super) const MAX_SERVERS: usize = 3;

/// Domains that are tried.
pub(super) const MAX_SEARCHES: usize = 32;

/// The port of DNS servers.
pub(in crate::network) const PORT: u16 = 53;

/// How a resolver goes about its questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Options {
    /// Names with fewer dots are tried with the search domains first.
    pub(super) ndots: usize,
    /// How long one server is waited for.
    pub(super) timeout: Duration,
    /// How often the servers are asked in turn.
    pub(super) attempts: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl Options {
    /// Takes one option over. One that is not known, or whose value is no number, has no effect.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let Ok(number) = value.parse::<u32>() else {
            return;
        };
        match name {
            "ndots" => self.ndots = number.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, 30).into()),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }
}

/// What a `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    pub(super) options: Options,
}

impl ResolvConf {
    /// Reads the text; lines that make no sense have no effect.
    pub(super) fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // An IPv6 address may name its zone, which no packet of ours needs.
                    let address = words.next().and_then(|word| word.split('%').next());
                    read.servers
                        .extend(address.and_then(|it| it.parse::<IpAddr>().ok()));
                }
                // The last of both counts.
                Some("search" | "domain") => read.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        let (name, value) = option.split_once(':').unwrap_or((option, ""));
                        read.options.set(name, value);
                    }
                }
                _ => {}
            }
        }
        read.servers.truncate(MAX_SERVERS);
        read.search.truncate(MAX_SEARCHES);
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_c_library_reads_them() {
        let read = ResolvConf::parse(
            "# of nobody\nnameserver 192.0.2.1 ; first\nnameserver fe80::1%eth0\nnameserver nonsense\n\
             nameserver 192.0.2.3\nnameserver 192.0.2.4\ndomain old.example\nsearch a.example b.example\n\
             options ndots:99 timeout:0 attempts:nine rotate\n",
        );
        let servers = ["192.0.2.1", "fe80::1", "192.0.2.3"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(read.servers, servers);
        assert_eq!(read.search, ["a.example", "b.example"]);
        let want = Options {
            ndots: 15,
            timeout: Duration::from_secs(1),
            attempts: 2,
        };
        assert_eq!(read.options, want);
        assert_eq!(
            ResolvConf::parse("\u{0}\nnameserver"),
            ResolvConf::default()
        );
    }
}
