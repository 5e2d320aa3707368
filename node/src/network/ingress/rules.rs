//! Which Service answers for which host and path: a pure table made of all Ingresses.
//!
//! ```text
//!   host     its own rules, then those of the wildcard above it, then those of any host
//!   path     among the rules of a host the longest path first; of the same length Exact before Prefix; then the older
//!   nothing  the default backend of that host's Ingresses, then of the wildcard's, then of any host's
//! ```
//!
//! Prefixes are compared element by element: `/a` stands for `/a`, `/a/` and `/a/b`, not for `/ab`. A path of type
//! ImplementationSpecific is a prefix.
//!
//! Source: the API's documentation of Ingress; where it is silent (a host whose own rules do not fit), the next host's
//! rules are asked.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use kube::ResourceExt;

use crate::network::follow::ObjectKey;

/// A port of a Service, as an Ingress names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum PortRef {
    Name(String),
    Number(u16),
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) service: ObjectKey,
    pub(super) port: PortRef,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Service(Backend),
    /// A backend of a kind that nobody here knows.
    Unknown,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Exact,
    Prefix,
}

#[derive(Debug)]
struct Route {
    /// A prefix is kept without its last slash.
    path: String,
    by: Match,
    target: Arc<Target>,
}

impl Route {
    fn fits(&self, path: &str) -> bool {
        match self.by {
            Match::Exact => path == self.path,
            Match::Prefix => path
                .strip_prefix(self.path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// The rules of one host.
#[derive(Debug, Default)]
struct Host {
    /// In the order in which they are tried.
    routes: Vec<Route>,
    default: Option<Arc<Target>>,
}

/// By name, or by what a wildcard stands before.
#[derive(Debug)]
pub(super) struct ByHost<T> {
    exact: HashMap<String, T>,
    wildcard: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T> ByHost<T> {
    /// What fits a host in lower case, the most particular first.
    pub(super) fn fitting(&self, host: Option<&str>) -> impl Iterator<Item = &T> {
        let exact = host.and_then(|host| self.exact.get(host));
        // Spec: a wildcard stands for one label.
        let above = host.and_then(|host| Some(host.split_once('.')?.1));
        let wildcard = above.and_then(|above| self.wildcard.get(above));
        exact.into_iter().chain(wildcard).chain(&self.any)
    }

    /// The place of a host as rules write it; an empty one is any.
    fn place(&mut self, host: &str) -> &mut T
    where
        T: Default,
    {
        match host.strip_prefix("*.") {
            Some(above) => self.wildcard.entry(above.to_owned()).or_default(),
            None if host.is_empty() => self.any.get_or_insert_default(),
            None => self.exact.entry(host.to_owned()).or_default(),
        }
    }
}

/// What all Ingresses together say.
#[derive(Debug, Default)]
pub(super) struct Rules {
    hosts: ByHost<Host>,
    /// The Secrets whose certificates are shown for a host, the first that can be used.
    pub(super) certificates: ByHost<Vec<ObjectKey>>,
}

impl Rules {
    /// Joins Ingresses, of which the older come first.
    pub(super) fn compile<'a>(ingresses: impl Iterator<Item = &'a Ingress>) -> Self {
        let mut all: Vec<_> = ingresses.collect();
        all.sort_by_key(|ingress| {
            let made = ingress.metadata.creation_timestamp.as_ref();
            (made.map(|made| made.0), ObjectKey::of(*ingress))
        });
        let mut rules = Self::default();
        for ingress in all {
            rules.add(ingress);
        }
        let hosts = &mut rules.hosts;
        let all = hosts.exact.values_mut().chain(hosts.wildcard.values_mut());
        for host in all.chain(&mut hosts.any) {
            // Stable: of equals the older stays first.
            host.routes.sort_by_key(|route| {
                (
                    std::cmp::Reverse(route.path.len()),
                    route.by == Match::Prefix,
                )
            });
        }
        rules
    }

    fn add(&mut self, ingress: &Ingress) {
        let Some(spec) = &ingress.spec else { return };
        let namespace = ingress.namespace().unwrap_or_default();
        let mut hosts = Vec::new();
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.clone().unwrap_or_default().to_ascii_lowercase();
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            let routes = paths.map(|path| route(&namespace, path));
            self.hosts.place(&host).routes.extend(routes);
            hosts.push(host);
        }
        if let Some(backend) = &spec.default_backend {
            let target = Arc::new(target(&namespace, backend));
            let anywhere = [String::new()];
            for host in if hosts.is_empty() {
                &anywhere[..]
            } else {
                &hosts
            } {
                let place = &mut self.hosts.place(host).default;
                place.get_or_insert_with(|| target.clone());
            }
        }
        for tls in spec.tls.iter().flatten() {
            let Some(secret) = tls.secret_name.as_deref().filter(|it| !it.is_empty()) else {
                continue;
            };
            let named = tls
                .hosts
                .iter()
                .flatten()
                .map(|host| host.to_ascii_lowercase());
            let named: Vec<_> = named.collect();
            for host in if named.is_empty() { &hosts } else { &named } {
                let secrets = self.certificates.place(host);
                secrets.push(ObjectKey::new(&namespace, secret));
            }
        }
    }

    /// Where a request for a host, in lower case and without a port, and a path goes.
    pub(super) fn target(&self, host: Option<&str>, path: &str) -> Option<&Target> {
        let routes = self.hosts.fitting(host).flat_map(|host| &host.routes);
        let mut fitting = routes.filter(|route| route.fits(path));
        let mut defaults = self
            .hosts
            .fitting(host)
            .filter_map(|host| host.default.as_ref());
        let found = fitting.next().map(|route| &route.target);
        found.or_else(|| defaults.next()).map(AsRef::as_ref)
    }

    /// Every Secret that is needed.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &ObjectKey> {
        let certificates = &self.certificates;
        let exact = certificates
            .exact
            .values()
            .chain(certificates.wildcard.values());
        exact.chain(&certificates.any).flatten()
    }
}

fn route(namespace: &str, path: &HTTPIngressPath) -> Route {
    let text = path.path.as_deref().unwrap_or_default();
    let (by, path_text) = match path.path_type.as_str() {
        "Exact" => (Match::Exact, text),
        _ => (Match::Prefix, text.strip_suffix('/').unwrap_or(text)),
    };
    Route {
        path: path_text.to_owned(),
        by,
        target: Arc::new(target(namespace, &path.backend)),
    }
}

fn target(namespace: &str, backend: &IngressBackend) -> Target {
    let of_service = || {
        let service = backend.service.as_ref()?;
        let port = service.port.as_ref()?;
        let number = || port.number.and_then(|number| u16::try_from(number).ok());
        let named = port.name.clone().filter(|name| !name.is_empty());
        Some(Target::Service(Backend {
            service: ObjectKey::new(namespace, &service.name),
            port: named
                .map(PortRef::Name)
                .or_else(|| number().map(PortRef::Number))?,
        }))
    };
    of_service().unwrap_or(Target::Unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ingress(name: &str, second: u32, spec: &Value) -> Ingress {
        let made = format!("2026-01-01T00:00:{second:02}Z");
        serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": name, "creationTimestamp": made}, "spec": spec}))
        .unwrap()
    }

    fn backend(name: &str) -> Value {
        json!({"service": {"name": name, "port": {"number": 80}}})
    }

    /// A rule of a host with `path type service`.
    fn rule(host: &str, paths: &[&str]) -> Value {
        let path = |row: &&str| {
            let words: Vec<_> = row.split(' ').collect();
            json!({"path": words[0], "pathType": words[1], "backend": backend(words[2])})
        };
        let paths: Vec<_> = paths.iter().map(path).collect();
        let mut rule = json!({"http": {"paths": paths}});
        if !host.is_empty() {
            rule["host"] = host.into();
        }
        rule
    }

    fn rules(rules: &[Value]) -> Rules {
        let spec = json!({ "rules": rules });
        Rules::compile([ingress("one", 1, &spec)].iter())
    }

    fn goes(rules: &Rules, host: &str, path: &str) -> String {
        match rules.target(Some(host).filter(|it| !it.is_empty()), path) {
            None => "nowhere".to_owned(),
            Some(Target::Unknown) => "unknown".to_owned(),
            Some(Target::Service(backend)) => backend.service.name.clone(),
        }
    }

    /// The table of the API's documentation: path type, rule, request, whether it fits.
    #[test]
    fn paths_fit_as_documented() {
        for (by, rule_path, path, fits) in [
            ("Prefix", "/", "/any/path", true),
            ("Exact", "/foo", "/foo", true),
            ("Exact", "/foo", "/bar", false),
            ("Exact", "/foo", "/foo/", false),
            ("Exact", "/foo/", "/foo", false),
            ("Exact", "/foo", "/FOO", false),
            ("Prefix", "/foo", "/foo", true),
            ("Prefix", "/foo", "/foo/", true),
            ("Prefix", "/foo/", "/foo", true),
            ("Prefix", "/foo/", "/foo/", true),
            ("Prefix", "/aaa/bb", "/aaa/bbb", false),
            ("Prefix", "/aaa/bbb", "/aaa/bbb", true),
            ("Prefix", "/aaa/bbb/", "/aaa/bbb", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbb/", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbb/ccc", true),
            ("Prefix", "/aaa/bbb", "/aaa/bbbxyz", false),
            ("ImplementationSpecific", "/foo", "/foo/bar", true),
            ("ImplementationSpecific", "/foo", "/foobar", false),
        ] {
            let rules = rules(&[rule("", &[&format!("{rule_path} {by} web")])]);
            let want = if fits { "web" } else { "nowhere" };
            assert_eq!(
                goes(&rules, "x.example", path),
                want,
                "{by} {rule_path} {path}"
            );
        }
        let open = json!({"rules": [{"http": {"paths": [
            {"pathType": "ImplementationSpecific", "backend": backend("web")}]}}]});
        let open = Rules::compile([ingress("one", 1, &open)].iter());
        assert_eq!(goes(&open, "", "/what/ever"), "web");
    }

    #[test]
    fn the_longest_path_wins_and_exact_before_prefix() {
        let rules = rules(&[rule(
            "",
            &[
                "/ Prefix root",
                "/aaa Prefix a",
                "/aaa/bbb Prefix b",
                "/aaa Exact exact",
                "/aaa/ Exact slash",
            ],
        )]);
        for (path, want) in [
            ("/ccc", "root"),
            ("/aaa", "exact"),
            ("/aaa/", "slash"),
            ("/aaa/ccc", "a"),
            ("/aaa/bbb/x", "b"),
        ] {
            assert_eq!(goes(&rules, "", path), want, "{path}");
        }
    }

    #[test]
    fn the_most_particular_host_wins_if_it_has_a_path() {
        let rules = rules(&[
            rule("", &["/any Prefix any", "/wild Prefix any"]),
            rule("*.Example.com", &["/wild Prefix wild", "/own Prefix wild"]),
            rule("www.example.com", &["/own Prefix own"]),
        ]);
        for (host, path, want) in [
            ("www.example.com", "/own", "own"),
            ("www.example.com", "/wild", "wild"),
            ("www.example.com", "/any", "any"),
            ("api.example.com", "/own", "wild"),
            ("a.b.example.com", "/own", "nowhere"),
            ("example.com", "/own", "nowhere"),
            ("example.com", "/wild", "any"),
            ("", "/any", "any"),
            ("", "/own", "nowhere"),
        ] {
            assert_eq!(goes(&rules, host, path), want, "{host}{path}");
        }
    }

    #[test]
    fn a_default_backend_is_for_its_own_hosts_or_for_all_if_it_names_none() {
        let hosts = json!({"defaultBackend": backend("own"), "rules": [rule("a.example", &["/x Exact x"]), {"host": "b.example"}]});
        let all = json!({"defaultBackend": backend("all")});
        let younger = json!({"defaultBackend": backend("younger")});
        let all = [
            ingress("young", 3, &younger),
            ingress("all", 2, &all),
            ingress("hosts", 1, &hosts),
        ];
        let rules = Rules::compile(all.iter());
        for (host, path, want) in [
            ("a.example", "/x", "x"),
            ("a.example", "/y", "own"),
            ("b.example", "/", "own"),
            ("c.example", "/x", "all"),
        ] {
            assert_eq!(goes(&rules, host, path), want, "{host}{path}");
        }
    }

    #[test]
    fn the_older_ingress_has_a_path_that_two_name() {
        let spec = |service: &str| json!({"rules": [rule("a.example", &[&format!("/ Prefix {service}")])]});
        let all = [
            ingress("b", 2, &spec("second")),
            ingress("c", 1, &spec("first")),
            ingress("a", 2, &spec("third")),
        ];
        assert_eq!(goes(&Rules::compile(all.iter()), "a.example", "/"), "first");
    }

    #[test]
    fn backends_that_are_no_services_are_known_for_what_they_are() {
        let bucket =
            json!({"resource": {"apiGroup": "k8s.example.com", "kind": "Bucket", "name": "b"}});
        let spec = json!({"defaultBackend": bucket});
        let rules = Rules::compile([ingress("one", 1, &spec)].iter());
        assert_eq!(goes(&rules, "", "/"), "unknown");
    }

    #[test]
    fn certificates_are_for_the_hosts_named_or_those_of_the_rules() {
        let spec = json!({
            "tls": [{"hosts": ["A.example", "*.b.example"], "secretName": "named"}, {"secretName": "rules"}, {"hosts": ["x"]}],
            "rules": [rule("c.example", &["/ Prefix web"])],
        });
        let rules = Rules::compile([ingress("one", 1, &spec)].iter());
        for (host, want) in [
            ("a.example", &["named"][..]),
            ("x.b.example", &["named"]),
            ("c.example", &["rules"]),
            ("d.example", &[]),
        ] {
            let found = rules.certificates.fitting(Some(host)).flatten();
            let found: Vec<_> = found.map(|key| key.name.as_str()).collect();
            assert_eq!(found, want, "{host}");
        }
        let mut secrets: Vec<_> = rules.secrets().map(|key| key.name.as_str()).collect();
        secrets.sort_unstable();
        secrets.dedup();
        assert_eq!(secrets, ["named", "rules"]);
    }
}
