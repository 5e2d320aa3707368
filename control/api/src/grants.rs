//! What a component of a pod is granted beyond its volumes: interfaces, ways out of the cluster, reuse of instances.
//!
//! Annotations say it, the same on a pod and on its namespace. On a pod they are what its components get; on a namespace
//! they are the most that its pods may ask for, and what they get that ask for nothing.
//!
//! | annotation | value | if absent |
//! |---|---|---|
//! | [`INTERFACES`] | `*`, or packages (`wasi:sockets`) and interfaces (`wasi:http/outgoing-handler`) of WIT | `*` |
//! | [`HOST_INTERFACES`] | the same, of the interfaces that the program which hosts the node agent offers | none |
//! | [`EGRESS`] | `none`: the pod itself; `cluster`: Services and pods; `all` | `all` |
//! | [`REQUESTS_PER_INSTANCE`] | how many requests one instance of an http component serves | 1 for a pod, any number for a namespace |

use std::fmt;

/// Annotation: the interfaces that components may import.
pub const INTERFACES: &str = "wasm.windlass.dev/interfaces";
/// Annotation: the interfaces of the program that hosts the node agent that components may import.
pub const HOST_INTERFACES: &str = "wasm.windlass.dev/host-interfaces";
/// Annotation: where components may connect to.
pub const EGRESS: &str = "wasm.windlass.dev/egress";
/// Annotation: how many requests one instance serves before it is dropped.
pub const REQUESTS_PER_INSTANCE: &str = "wasm.windlass.dev/requests-per-instance";

/// Every annotation that grants something.
pub const ANNOTATIONS: [&str; 4] = [INTERFACES, HOST_INTERFACES, EGRESS, REQUESTS_PER_INSTANCE];

/// Where a pod may connect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Egress {
    /// Only itself.
    None,
    /// Services and pods of the cluster.
    Cluster,
    /// Anywhere that the node lets pods connect to.
    #[default]
    All,
}

impl Egress {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cluster => "cluster",
            Self::All => "all",
        }
    }
}

/// The interfaces that may be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interfaces {
    /// Whatever the node offers.
    #[default]
    All,
    /// These packages and interfaces, without versions.
    Some(Vec<String>),
}

impl Interfaces {
    /// No interface.
    pub const NONE: Self = Self::Some(Vec::new());

    /// Whether an import, such as `wasi:http/types@0.2.6`, is among them.
    #[must_use]
    pub fn include(&self, import: &str) -> bool {
        let Self::Some(granted) = self else {
            return true;
        };
        let (interface, _) = import.split_once('@').unwrap_or((import, ""));
        let (package, _) = interface.split_once('/').unwrap_or((interface, ""));
        granted.iter().any(|of| of == package || of == interface)
    }

    /// What of these is not among `most`.
    fn beyond(&self, most: &Self) -> Option<String> {
        match (self, most) {
            (_, Self::All) => None,
            (Self::All, Self::Some(_)) => Some("*".to_owned()),
            (Self::Some(wanted), most) => wanted.iter().find(|one| !most.include(one)).cloned(),
        }
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Some(granted) => f.write_str(&granted.join(",")),
        }
    }
}

/// What annotations say. `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// See [`INTERFACES`].
    pub interfaces: Option<Interfaces>,
    /// See [`HOST_INTERFACES`].
    pub host_interfaces: Option<Interfaces>,
    /// See [`EGRESS`].
    pub egress: Option<Egress>,
    /// See [`REQUESTS_PER_INSTANCE`].
    pub requests_per_instance: Option<usize>,
}

/// An annotation that says nothing that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}: {value:?} is not {wanted}")]
pub struct GrantError {
    /// Which annotation.
    pub key: &'static str,
    /// What it says.
    pub value: String,
    /// What it could say.
    pub wanted: &'static str,
}

/// Something that is asked for and not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// Which annotation.
    pub key: &'static str,
    /// What is asked for.
    pub asked: String,
    /// The most that there is.
    pub most: String,
}

impl Grants {
    /// Reads annotations.
    ///
    /// # Errors
    /// The first that cannot be understood.
    pub fn read<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Self, GrantError> {
        let wrong = |key, value: &str, wanted| GrantError {
            key,
            value: value.to_owned(),
            wanted,
        };
        let listed = |key| {
            let wanted =
                "* or a list of WIT packages and interfaces, such as wasi:http,wasi:cli/stdout";
            let read = |text| interfaces(text).ok_or_else(|| wrong(key, text, wanted));
            annotation(key).map(read).transpose()
        };
        let egress = annotation(EGRESS).map(|text| {
            let all = [Egress::None, Egress::Cluster, Egress::All];
            let found = all.into_iter().find(|egress| egress.name() == text);
            found.ok_or_else(|| wrong(EGRESS, text, "one of none, cluster, all"))
        });
        let requests = annotation(REQUESTS_PER_INSTANCE).map(|text| {
            let count = text.parse().ok().filter(|count| *count > 0);
            count.ok_or_else(|| wrong(REQUESTS_PER_INSTANCE, text, "a positive number"))
        });
        Ok(Self {
            interfaces: listed(INTERFACES)?,
            host_interfaces: listed(HOST_INTERFACES)?,
            egress: egress.transpose()?,
            requests_per_instance: requests.transpose()?,
        })
    }

    /// What is asked for beyond `most`, which says nothing where it leaves the choice.
    #[must_use]
    pub fn beyond(&self, most: &Self) -> Option<Beyond> {
        for (key, asked, most) in [
            (INTERFACES, &self.interfaces, &most.interfaces),
            (
                HOST_INTERFACES,
                &self.host_interfaces,
                &most.host_interfaces,
            ),
        ] {
            if let (Some(asked), Some(most)) = (asked, most)
                && let Some(asked) = asked.beyond(most)
            {
                return Some(Beyond {
                    key,
                    asked,
                    most: most.to_string(),
                });
            }
        }
        if let (Some(asked), Some(most)) = (self.egress, most.egress)
            && asked > most
        {
            return Some(Beyond {
                key: EGRESS,
                asked: asked.name().into(),
                most: most.name().into(),
            });
        }
        if let (Some(asked), Some(most)) = (self.requests_per_instance, most.requests_per_instance)
            && asked > most
        {
            return Some(Beyond {
                key: REQUESTS_PER_INSTANCE,
                asked: asked.to_string(),
                most: most.to_string(),
            });
        }
        None
    }
}

fn interfaces(text: &str) -> Option<Interfaces> {
    if text.trim() == "*" {
        return Some(Interfaces::All);
    }
    if text.trim().is_empty() {
        return Some(Interfaces::Some(Vec::new()));
    }
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-:/.".contains(c);
        name.contains(':') && name.chars().all(allowed)
    };
    let names = text.split(',').map(str::trim);
    let names: Vec<String> = names.map(str::to_owned).collect();
    names
        .iter()
        .all(|name| is_name(name))
        .then_some(Interfaces::Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(interfaces: &str, egress: &str, requests: &str) -> Result<Grants, GrantError> {
        let values = [
            (INTERFACES, interfaces),
            (EGRESS, egress),
            (REQUESTS_PER_INSTANCE, requests),
        ];
        Grants::read(|key| {
            let found = values.iter().find(|(known, _)| *known == key);
            found.map(|(_, value)| *value).filter(|value| *value != "-")
        })
    }

    #[test]
    fn imports_are_granted_by_package_or_by_interface_of_any_version() {
        let read = grants("wasi:http, wasi:cli/stdout", "-", "-").unwrap();
        let some = read.interfaces.unwrap();
        for import in [
            "wasi:http/types@0.2.6",
            "wasi:http/handler@0.3.0",
            "wasi:cli/stdout@0.2.0",
        ] {
            assert!(some.include(import), "{import}");
        }
        for import in [
            "wasi:cli/stdin@0.2.0",
            "wasi:httpx/types@0.2.0",
            "wasi:sockets/tcp@0.2.0",
        ] {
            assert!(!some.include(import), "{import}");
        }
        assert!(Interfaces::All.include("x:y/z"));
        let none = grants("", "-", "-").unwrap().interfaces.unwrap();
        assert!(!none.include("wasi:cli/stdout"));
    }

    #[test]
    fn interfaces_of_the_host_have_an_annotation_of_their_own() {
        let read = |value: &'static str| {
            let of = move |key: &str| (key == HOST_INTERFACES).then_some(value);
            Grants::read(of).unwrap()
        };
        let asked = read("example:counter");
        assert_eq!(asked.interfaces, None);
        let some = asked.host_interfaces.clone().unwrap();
        assert!(some.include("example:counter/counter@1.0.0"));
        assert_eq!(asked.beyond(&read("")).unwrap().key, HOST_INTERFACES);
        assert_eq!(asked.beyond(&read("*")), None);
        assert_eq!(asked.beyond(&Grants::default()), None);
    }

    #[test]
    fn who_asks_for_more_than_there_is_is_told_what_there_is() {
        let most = grants("wasi:cli,wasi:http", "cluster", "10").unwrap();
        for (asked, key) in [
            (("*", "-", "-"), INTERFACES),
            (("wasi:cli,wasi:sockets", "-", "-"), INTERFACES),
            (("-", "all", "-"), EGRESS),
            (("-", "-", "11"), REQUESTS_PER_INSTANCE),
        ] {
            let asked = grants(asked.0, asked.1, asked.2).unwrap();
            assert_eq!(asked.beyond(&most).unwrap().key, key);
            assert_eq!(asked.beyond(&Grants::default()), None);
        }
        let within = grants("wasi:http/types", "none", "10").unwrap();
        assert_eq!(within.beyond(&most), None);
        assert_eq!(Grants::default().beyond(&most), None);
        for (interfaces, egress, requests) in [
            ("http", "-", "-"),
            ("-", "some", "-"),
            ("-", "-", "0"),
            ("a:b;c", "-", "-"),
        ] {
            assert!(grants(interfaces, egress, requests).is_err());
        }
    }
}
