//! How a pod resolves names: whom it asks, with which domains appended, and what it knows by itself.
//!
//! ```text
//!   dnsPolicy ─ the base: the cluster's server and domains, or the host's, or nothing
//!   dnsConfig ─ servers and domains appended to it, options in place of its own
//!   hostAliases, the pod's own name ─ known without asking, as from /etc/hosts
//! ```
//!
//! Pure. Domains and dots are treated as the C library's resolver does it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::PodSpec;

use super::resolv_conf::{MAX_SEARCHES, MAX_SERVERS, Options, ResolvConf};

/// Characters of all search domains together, with the spaces between them.
const MAX_SEARCH_LENGTH: usize = 2048;

/// Where a pod's configuration starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Base {
    #[default]
    Cluster,
    Host,
    Nothing,
}

/// What a pod's specification says about names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDns {
    base: Base,
    servers: Vec<IpAddr>,
    searches: Vec<String>,
    options: Vec<(String, String)>,
    aliases: Vec<(String, IpAddr)>,
    subdomain: Option<String>,
}

impl PodDns {
    /// Reads `dnsPolicy`, `dnsConfig`, `hostAliases` and `subdomain`.
    pub fn of(spec: &PodSpec) -> Self {
        let base = match spec.dns_policy.as_deref() {
            Some("None") => Base::Nothing,
            Some("Default") => Base::Host,
            Some("ClusterFirstWithHostNet") => Base::Cluster,
            // Spec: a pod in the network of its host has the host's names, unless it says otherwise.
            _ if spec.host_network == Some(true) => Base::Host,
            _ => Base::Cluster,
        };
        let config = spec.dns_config.clone().unwrap_or_default();
        let servers = config.nameservers.iter().flatten();
        let options = config.options.into_iter().flatten();
        let options = options.filter_map(|it| Some((it.name?, it.value.unwrap_or_default())));
        let aliases = spec.host_aliases.iter().flatten().flat_map(|alias| {
            let names = alias.hostnames.iter().flatten();
            names.filter_map(|name| Some((name.to_ascii_lowercase(), alias.ip.parse().ok()?)))
        });
        Self {
            base,
            servers: servers.filter_map(|it| it.parse().ok()).collect(),
            searches: config.searches.unwrap_or_default(),
            options: options.collect(),
            aliases: aliases.collect(),
            subdomain: spec.subdomain.clone().filter(|it| !it.is_empty()),
        }
    }
}

/// What a pod's `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodResolvConf {
    /// Who is asked.
    pub servers: Vec<IpAddr>,
    /// Domains that are tried.
    pub searches: Vec<String>,
    /// Options, as they are written.
    pub options: Vec<String>,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Server {
    /// The cluster's DNS, which knows the names outside too.
    Cluster,
    /// The servers of the host.
    Host,
    /// One that the pod names.
    Address(IpAddr),
}

/// How one pod resolves names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct PodNames {
    hosts: Vec<(String, IpAddr)>,
    pub(in crate::network) servers: Vec<Server>,
    search: Vec<String>,
    pub(in crate::network) options: Options,
}

/// Of which pod.
pub(in crate::network) struct Whose<'a> {
    pub(in crate::network) namespace: &'a str,
    pub(in crate::network) hostname: &'a str,
    pub(in crate::network) address: Ipv4Addr,
}

impl PodNames {
    /// Joins what the pod says with the cluster's domain and the host's configuration.
    pub(super) fn new(whose: &Whose<'_>, dns: &PodDns, domain: &str, host: &ResolvConf) -> Self {
        let cluster = || {
            vec![
                format!("{}.svc.{domain}", whose.namespace),
                format!("svc.{domain}"),
                domain.to_owned(),
            ]
        };
        let (mut servers, mut search, mut options) = match dns.base {
            Base::Cluster => {
                let options = Options {
                    ndots: 5,
                    ..Options::default()
                };
                (vec![Server::Cluster], cluster(), options)
            }
            Base::Host => (
                vec![Server::Host],
                host.search.clone(),
                host.options.clone(),
            ),
            Base::Nothing => (Vec::new(), Vec::new(), Options::default()),
        };
        let more = dns.servers.iter().copied().map(Server::Address);
        append(&mut servers, more, MAX_SERVERS);
        append(&mut search, dns.searches.iter().cloned(), MAX_SEARCHES);
        bound(&mut search);
        for (name, value) in &dns.options {
            options.set(name, value);
        }
        Self {
            hosts: hosts(whose, dns, domain),
            servers,
            search,
            options,
        }
    }

    /// What a file for the C library's resolver says; `None` if that is the host's own.
    #[cfg(feature = "containerd")]
    pub(super) fn resolv_conf(
        &self,
        cluster: Option<IpAddr>,
        host: &[IpAddr],
    ) -> Option<PodResolvConf> {
        if self.servers == [Server::Host] {
            return None;
        }
        let mut servers = Vec::new();
        for server in &self.servers {
            match server {
                Server::Cluster => servers.extend(cluster),
                Server::Host => servers.extend(host),
                Server::Address(address) => servers.push(*address),
            }
        }
        servers.truncate(MAX_SERVERS);
        let options = &self.options;
        let defaults = Options::default();
        let mut written = vec![format!("ndots:{}", options.ndots)];
        if options.timeout != defaults.timeout {
            written.push(format!("timeout:{}", options.timeout.as_secs()));
        }
        if options.attempts != defaults.attempts {
            written.push(format!("attempts:{}", options.attempts));
        }
        Some(PodResolvConf {
            servers,
            searches: self.search.clone(),
            options: written,
        })
    }

    /// The addresses that the pod knows of a name by itself; none if it has to ask.
    pub(in crate::network) fn known(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = name.parse() {
            return vec![address];
        }
        // Spec: RFC 6761, 6.3.
        if name == "localhost" || name.ends_with(".localhost") {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        let fitting = self.hosts.iter().filter(|(host, _)| *host == name);
        fitting.map(|(_, address)| *address).collect()
    }

    /// The full names to try, in order, without a last dot.
    pub(in crate::network) fn candidates(&self, name: &str) -> Vec<String> {
        let absolute = name.trim_end_matches('.').to_owned();
        if name.ends_with('.') {
            return vec![absolute];
        }
        let mut candidates = Vec::with_capacity(self.search.len() + 1);
        if name.matches('.').count() >= self.options.ndots {
            candidates.push(absolute.clone());
        }
        for domain in &self.search {
            let domain = domain.trim_end_matches('.');
            candidates.push(match domain {
                "" => absolute.clone(),
                _ => format!("{absolute}.{domain}"),
            });
        }
        candidates.push(absolute);
        let mut seen = std::collections::HashSet::new();
        candidates.retain(|candidate| seen.insert(candidate.clone()));
        candidates
    }
}

/// Appends what is not there yet, up to a number.
fn append<T: PartialEq>(list: &mut Vec<T>, more: impl Iterator<Item = T>, limit: usize) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
    list.truncate(limit);
}

fn bound(search: &mut Vec<String>) {
    let mut length = 0;
    search.retain(|domain| {
        length += domain.len() + 1;
        length <= MAX_SEARCH_LENGTH + 1
    });
}

/// The lines of the pod's `/etc/hosts`.
fn hosts(whose: &Whose<'_>, dns: &PodDns, domain: &str) -> Vec<(String, IpAddr)> {
    let hostname = whose.hostname.to_ascii_lowercase();
    let address = IpAddr::from(whose.address);
    let full = dns.subdomain.as_ref().map(|subdomain| {
        let namespace = whose.namespace;
        (
            format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"),
            address,
        )
    });
    let own = [(hostname, address)].into_iter().chain(full);
    own.chain(dns.aliases.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const WHOSE: Whose<'_> = Whose {
        namespace: "shop",
        hostname: "web-0",
        address: Ipv4Addr::new(10, 42, 0, 5),
    };

    fn names(spec: Value) -> PodNames {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let host = ResolvConf::parse("nameserver 192.0.2.1\nsearch home.example\noptions ndots:2");
        let dns = PodDns::of(&serde_json::from_value(spec).unwrap());
        PodNames::new(&WHOSE, &dns, "cluster.local", &host)
    }

    #[test]
    fn policies_and_configurations_are_joined() {
        use Server::{Address, Cluster, Host};
        let own = Address("192.0.2.9".parse().unwrap());
        let cluster = [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        let config = json!({"nameservers": ["192.0.2.9"], "searches": ["a.example", "cluster.local"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
        let with_own = [&cluster[..], &["a.example"]].concat();
        for (spec, servers, search, ndots) in [
            (json!({}), &[Cluster][..], &cluster[..], 5),
            (
                json!({"dnsPolicy": "ClusterFirst", "dnsConfig": config}),
                &[Cluster, own],
                &with_own,
                1,
            ),
            (
                json!({"dnsPolicy": "Default"}),
                &[Host],
                &["home.example"],
                2,
            ),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": config}),
                &[Host, own],
                &["home.example", "a.example", "cluster.local"],
                1,
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": config}),
                &[own],
                &["a.example", "cluster.local"],
                1,
            ),
            (json!({"hostNetwork": true}), &[Host], &["home.example"], 2),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                &[Cluster],
                &cluster,
                5,
            ),
        ] {
            let text = spec.to_string();
            let names = names(spec);
            assert_eq!(names.servers, servers, "{text}");
            assert_eq!(names.search, search, "{text}");
            assert_eq!(names.options.ndots, ndots, "{text}");
        }
    }

    #[test]
    fn dots_decide_what_is_tried_first() {
        let config = |ndots: &str| {
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"],
                "searches": ["a.example", "b.example."], "options": [{"name": "ndots", "value": ndots}]}})
        };
        for (ndots, name, want) in [
            ("1", "web", &["web.a.example", "web.b.example", "web"][..]),
            (
                "1",
                "web.x",
                &["web.x", "web.x.a.example", "web.x.b.example"],
            ),
            (
                "2",
                "web.x",
                &["web.x.a.example", "web.x.b.example", "web.x"],
            ),
            ("0", "web", &["web", "web.a.example", "web.b.example"]),
            ("5", "web.x.", &["web.x"]),
        ] {
            assert_eq!(
                names(config(ndots)).candidates(name),
                want,
                "{ndots} {name}"
            );
        }
        let root = names(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"],
            "searches": [".", "a.example"]}}),
        );
        assert_eq!(root.candidates("web"), ["web", "web.a.example"]);
    }

    #[test]
    fn a_pod_knows_itself_and_its_aliases() {
        let names = names(json!({"subdomain": "db", "hostAliases": [
            {"ip": "192.0.2.7", "hostnames": ["Old.example", "older"]}, {"ip": "::1", "hostnames": ["older"]}]}));
        for (name, want) in [
            ("WEB-0", &["10.42.0.5"][..]),
            ("web-0.db.shop.svc.cluster.local", &["10.42.0.5"]),
            ("old.example.", &["192.0.2.7"]),
            ("older", &["192.0.2.7", "::1"]),
            ("localhost", &["127.0.0.1", "::1"]),
            ("x.localhost", &["127.0.0.1", "::1"]),
            ("192.0.2.1", &["192.0.2.1"]),
            ("web-1", &[]),
        ] {
            let got: Vec<_> = names.known(name).iter().map(ToString::to_string).collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn search_domains_are_bounded() {
        let long: Vec<_> = (0..40)
            .map(|number| format!("{}{number}.example", "x".repeat(50)))
            .collect();
        let names = names(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"], "searches": long}}),
        );
        assert_eq!(names.search.len(), 32);
        let length: usize = names.search.iter().map(|it| it.len() + 1).sum();
        assert!(length <= 2049, "{length}");
    }

    #[test]
    fn a_file_for_the_c_library_says_the_same() {
        let server: IpAddr = "10.96.0.10".parse().unwrap();
        let cluster = Some(server);
        let host = ["9.9.9.9".parse().unwrap()];
        let found = names(json!({})).resolv_conf(cluster, &host).unwrap();
        assert_eq!(found.servers, [server]);
        assert_eq!(found.options, ["ndots:5"]);
        assert_eq!(found.searches.len(), 3);
        let none = names(json!({ "dnsPolicy": "Default" })).resolv_conf(cluster, &host);
        assert_eq!(none, None);
        let config = json!({
            "dnsPolicy": "None",
            "dnsConfig": { "nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{ "name": "timeout", "value": "3" }] },
        });
        let found = names(config).resolv_conf(cluster, &host).unwrap();
        assert_eq!(found.servers, ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.searches, ["a.b"]);
        assert_eq!(found.options, ["ndots:1", "timeout:3"]);
    }
}
