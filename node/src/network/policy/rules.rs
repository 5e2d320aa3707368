//! What a NetworkPolicy allows, as a pure function.
//!
//! 1. [`Policy::compile`] reads the object once; selectors that can't be read select nothing.
//! 2. A pod is isolated in a direction as soon as one policy of its namespace selects it for that direction.
//! 3. An isolated pod may have what one rule of one such policy allows; policies add up and never take away.
//!
//! Addresses are the pods' own: Services were resolved before. A block matches pods as it matches anybody
//! else.
//!
//! Spec: networking.k8s.io/v1 NetworkPolicy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};
use windlass_api::label_selector::LabelSelector;

use super::names::NamePattern;
use crate::network::switch::Transport;

/// Labels of a pod or a namespace.
pub(in crate::network) type Labels = BTreeMap<String, String>;

/// What policies ask of a pod. Agents tell each other of their own pods in this form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.labels`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The ports of its containers that have a name.
    #[serde(default)]
    pub ports: Vec<NamedPort>,
}

/// A port that a container gives a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

/// Which way traffic goes, as the selected pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::network) enum Direction {
    Ingress,
    Egress,
}

/// The other end.
#[derive(Clone, Copy)]
pub(in crate::network) struct Peer<'a> {
    pub(in crate::network) ip: IpAddr,
    /// Who it is, if it is a pod of the cluster.
    pub(in crate::network) pod: Option<&'a PodIdentity>,
    /// Whether the selected pod looked the address up by a name that fits.
    pub(in crate::network) known_as: &'a dyn Fn(&NamePattern) -> bool,
}

/// What is asked for: a connection to, or a datagram for, a port.
#[derive(Clone, Copy)]
pub(in crate::network) struct Traffic<'a> {
    pub(in crate::network) subject: &'a PodIdentity,
    pub(in crate::network) direction: Direction,
    pub(in crate::network) peer: Peer<'a>,
    pub(in crate::network) transport: Transport,
    /// Port at the receiving end.
    pub(in crate::network) port: u16,
}

impl Traffic<'_> {
    /// The pod whose ports names stand for.
    fn receiver(&self) -> Option<&PodIdentity> {
        match self.direction {
            Direction::Ingress => Some(self.subject),
            Direction::Egress => self.peer.pod,
        }
    }
}

/// A NetworkPolicy, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    namespace: String,
    pods: LabelSelector,
    /// Absent where the policy says nothing about the direction.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Anybody, if absent.
    peers: Option<Vec<PeerRule>>,
    /// Any port, if absent.
    ports: Option<Vec<PortRule>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PeerRule {
    Pods {
        /// The policy's own namespace, if absent.
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
    Block {
        block: IpNet,
        except: Vec<IpNet>,
    },
    Name(NamePattern),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PortRule {
    /// None for a transport that pods here don't have: matches nothing.
    transport: Option<Transport>,
    /// Any, if absent.
    port: Option<PortMatch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PortMatch {
    Numbers(u16, u16),
    Name(String),
}

impl Policy {
    /// Reads the object; `names` are those that its annotation lets pods reach.
    pub(super) fn compile(object: &api::NetworkPolicy, names: Vec<NamePattern>) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        // Spec: without types a policy is for ingress, and for egress if it has such rules.
        let is_for = |name: &str, has_rules: bool| {
            types.iter().any(|each| each == name)
                || types.is_empty() && (name == "Ingress" || has_rules)
        };
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let ingress = spec.ingress.unwrap_or_default();
        let egress = spec.egress.unwrap_or_default();
        let ingress = ingress
            .iter()
            .map(|rule| Rule::new(rule.from.as_ref(), rule.ports.as_ref()));
        let mut egress: Vec<_> = egress
            .iter()
            .map(|rule| Rule::new(rule.to.as_ref(), rule.ports.as_ref()))
            .collect();
        if !names.is_empty() {
            egress.push(Rule {
                peers: Some(names.into_iter().map(PeerRule::Name).collect()),
                ports: None,
            });
        }
        Self {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            pods: selector(Some(&spec.pod_selector.unwrap_or_default())),
            ingress: is_for("Ingress", false).then(|| ingress.collect()),
            egress: is_for("Egress", has_egress).then_some(egress),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether the policy isolates the pod in that direction.
    pub(super) fn isolates(&self, pod: &PodIdentity, direction: Direction) -> bool {
        self.namespace == pod.namespace
            && self.rules(direction).is_some()
            && self.pods.matches(&pod.labels)
    }

    /// Whether it matters which pod the other end is.
    pub(super) fn asks_for_pods(&self, direction: Direction) -> bool {
        let names_pods = |rule: &Rule| {
            let by_peer = rule.peers.as_ref().is_some_and(|peers| {
                peers
                    .iter()
                    .any(|peer| matches!(peer, PeerRule::Pods { .. }))
            });
            let by_port = rule.ports.as_ref().is_some_and(|ports| {
                let named = |port: &PortRule| matches!(port.port, Some(PortMatch::Name(_)));
                ports.iter().any(named)
            });
            by_peer || by_port && direction == Direction::Egress
        };
        self.rules(direction)
            .is_some_and(|rules| rules.iter().any(names_pods))
    }

    /// Whether a rule lets the traffic through. `labels_of` tells a namespace's labels.
    pub(super) fn allows<'a>(
        &self,
        traffic: &Traffic<'_>,
        labels_of: impl Fn(&str) -> Option<&'a Labels>,
    ) -> bool {
        let rules = self.rules(traffic.direction).unwrap_or_default();
        rules.iter().any(|rule| {
            let peer = |peer: &PeerRule| peer.matches(&self.namespace, &traffic.peer, &labels_of);
            let port = |port: &PortRule| port.matches(traffic);
            rule.peers
                .as_ref()
                .is_none_or(|peers| peers.iter().any(peer))
                && rule
                    .ports
                    .as_ref()
                    .is_none_or(|ports| ports.iter().any(port))
        })
    }
}

impl Rule {
    /// Spec: an empty list of peers or ports is as none.
    fn new(
        peers: Option<&Vec<api::NetworkPolicyPeer>>,
        ports: Option<&Vec<api::NetworkPolicyPort>>,
    ) -> Self {
        Self {
            peers: peers
                .filter(|all| !all.is_empty())
                .map(|all| all.iter().filter_map(PeerRule::new).collect()),
            ports: ports
                .filter(|all| !all.is_empty())
                .map(|all| all.iter().filter_map(PortRule::new).collect()),
        }
    }
}

fn selector(object: Option<&ObjectSelector>) -> LabelSelector {
    // The API lets no other in; what cannot be read opens nothing.
    LabelSelector::from_object(object).unwrap_or_else(|_| LabelSelector::nothing())
}

impl PeerRule {
    fn new(peer: &api::NetworkPolicyPeer) -> Option<Self> {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten();
            return Some(Self::Block {
                block: block.cidr.parse().ok()?,
                // One that can't be read would open what it should close.
                except: except
                    .map(|text| text.parse().ok())
                    .collect::<Option<_>>()?,
            });
        }
        let everything = ObjectSelector::default();
        Some(Self::Pods {
            namespaces: peer
                .namespace_selector
                .as_ref()
                .map(|each| selector(Some(each))),
            pods: selector(Some(peer.pod_selector.as_ref().unwrap_or(&everything))),
        })
    }

    fn matches<'a>(
        &self,
        own: &str,
        peer: &Peer<'_>,
        labels_of: impl Fn(&str) -> Option<&'a Labels>,
    ) -> bool {
        match self {
            Self::Block { block, except } => {
                let ip = peer.ip.to_canonical();
                block.contains(&ip) && !except.iter().any(|each| each.contains(&ip))
            }
            Self::Name(pattern) => peer.pod.is_none() && (peer.known_as)(pattern),
            Self::Pods { namespaces, pods } => peer.pod.is_some_and(|pod| {
                let in_namespace = match namespaces {
                    None => pod.namespace == own,
                    Some(selector) => {
                        labels_of(&pod.namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                in_namespace && pods.matches(&pod.labels)
            }),
        }
    }
}

impl PortRule {
    fn new(port: &api::NetworkPolicyPort) -> Option<Self> {
        let matching = match &port.port {
            None => None,
            Some(IntOrString::Int(number)) => {
                let first = u16::try_from(*number).ok()?;
                let last = port.end_port.map_or(Ok(first), u16::try_from).ok()?;
                Some(PortMatch::Numbers(first, last))
            }
            Some(IntOrString::String(name)) => Some(PortMatch::Name(name.clone())),
        };
        Some(Self {
            transport: Transport::parse(port.protocol.as_deref()),
            port: matching,
        })
    }

    fn matches(&self, traffic: &Traffic<'_>) -> bool {
        let named = |name: &String| {
            traffic.receiver().is_some_and(|pod| {
                pod.ports.iter().any(|port| {
                    port.name == *name
                        && port.number == traffic.port
                        && port.protocol == traffic.transport.as_str()
                })
            })
        };
        self.transport == Some(traffic.transport)
            && match &self.port {
                None => true,
                Some(PortMatch::Numbers(first, last)) => (*first..=*last).contains(&traffic.port),
                Some(PortMatch::Name(name)) => named(name),
            }
    }
}
