//! What the kernel is told: links, addresses, routes and rules, as scripts for `ip` and `nft`. Pure.
//!
//! Nothing here depends on the pods' policies or on Services: those are the switch's. The kernel learns which packets to
//! ask about, and remembers what it was answered by marks of its connections:
//!
//! | mark of a connection | what the switch decided |
//! |---|---|
//! | `DIRECT` | the kernel carries it from end to end |
//! | `PROXIED` | the agent carries it |
//! | `DATAGRAMS` | the agent carries each datagram |
//!
//! A new connection of a pod is not tracked before it was answered for: what the kernel's address translation decides
//! about it must be decided once, and on its way out.
//!
//! Everything is in a table, in routing tables, and at links of names that nobody else uses, so that it can be made
//! anew and removed as a whole.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use rustix::process::Pid;

use super::pod_link::PodLink;
use crate::network::address_pool::Cidr;

/// The device by which the kernel asks, and is answered.
pub(super) const ASK: &str = "windlass0";

/// The device by which comes in what the agent carries.
pub(super) const CARRY: &str = "windlass1";

/// What the names of the pods' links begin with.
pub(super) const LINK_PREFIX: &str = "wlp";

/// Where the pods' packets go first: no such machine exists, its hardware address is written down at both ends.
pub(super) const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// By what the node's own address among its pods' is known. It is not the devices': those go with the agent, and what the
/// kernel carries from that address goes on.
const LABEL: &str = "lo:windlass";

/// Mark of packets that are for a socket of the agent, whatever their address.
const TO_AGENT: u32 = 0x5749_0001;

/// Mark of packets that the switch is asked about.
const TO_ASK: u32 = 0x5749_0002;

const DIRECT: u32 = 0x5749_0011;
const PROXIED: u32 = 0x5749_0012;
const DATAGRAMS: u32 = 0x5749_0013;

const TO_AGENT_TABLE: u32 = 5749;
const TO_ASK_TABLE: u32 = 5750;

/// What of the addresses of the cluster leads to the switch, for programs of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges {
    /// The pods of this node.
    pub(super) pods: Cidr,
    /// Those of all nodes, if known.
    pub(super) cluster: Option<Cidr>,
    /// Services, if known.
    pub(super) services: Option<Cidr>,
}

/// The routing tables by the marks that lead to them. A table's number is its rule's priority, too.
const RULES: [(u32, u32); 2] = [(TO_AGENT, TO_AGENT_TABLE), (TO_ASK, TO_ASK_TABLE)];

/// `ip`: leads marked packets to their tables.
pub(super) fn add_rules() -> String {
    let mut script = String::new();
    for (mark, table) in RULES {
        let _infallible = writeln!(
            script,
            "rule add fwmark {mark:#x} lookup {table} pref {table}"
        );
    }
    script
}

/// `ip`: the reverse of it, one rule at a time.
pub(super) fn remove_rules() -> impl Iterator<Item = String> {
    RULES
        .into_iter()
        .map(|(_, table)| format!("rule del pref {table}\n"))
}

/// `ip`: empties their tables and takes the node's address away, one at a time.
pub(super) fn remove_routes() -> impl Iterator<Item = String> {
    let tables = RULES.into_iter();
    let tables = tables.map(|(_, table)| format!("route flush table {table}\n"));
    tables.chain([format!("addr flush dev lo label {LABEL}\n")])
}

/// `ip`: addresses and routes of the devices. While there is no agent, what would be asked about is unreachable.
pub(super) fn routes(ranges: &Ranges) -> String {
    let gateway = ranges.pods.gateway();
    let mut script = format!(
        "link set {ASK} up\n\
         link set {CARRY} up\n\
         addr replace {gateway}/32 dev lo label {LABEL}\n\
         route replace local default dev lo table {TO_AGENT_TABLE}\n\
         route replace default dev {ASK} table {TO_ASK_TABLE}\n\
         route replace unreachable default metric 4278198272 table {TO_ASK_TABLE}\n"
    );
    let ranges = [Some(ranges.pods), ranges.cluster, ranges.services];
    for range in ranges.into_iter().flatten() {
        let _infallible = writeln!(script, "route replace {range} dev {ASK} src {gateway}");
    }
    script
}

/// Settings below `/proc/sys/net/ipv4`.
pub(super) fn settings() -> Vec<(String, &'static str)> {
    vec![
        ("ip_forward".to_owned(), "1"),
        (format!("conf/{ASK}/rp_filter"), "0"),
        (format!("conf/{CARRY}/rp_filter"), "0"),
        // What this machine itself says comes by them, too.
        (format!("conf/{ASK}/accept_local"), "1"),
        (format!("conf/{CARRY}/accept_local"), "1"),
    ]
}

/// `nft`: the rules, in place of those there were. `proxy` is the port of the agent's listener on loopback.
pub(super) fn ruleset(proxy: u16) -> String {
    format!(
        r#"table inet windlass
delete table inet windlass
table inet windlass {{
  chain untracked {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{LINK_PREFIX}*" tcp flags & (syn | ack | rst | fin) == syn notrack
  }}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{ASK}" ct state new ct mark set {DIRECT:#x}
    iifname "{ASK}" accept
    iifname "{CARRY}" meta l4proto udp ct mark set {DATAGRAMS:#x} accept
    iifname "{CARRY}" meta l4proto tcp ct mark set {PROXIED:#x} tproxy ip to 127.0.0.1:{proxy} meta mark set {TO_AGENT:#x} accept
    meta nfproto ipv4 socket transparent 1 meta mark set {TO_AGENT:#x} accept
    iifname "{LINK_PREFIX}*" goto from_pod
  }}
  chain from_pod {{
    meta nfproto ipv6 drop
    fib saddr . iif oif missing drop
    ct mark {DATAGRAMS:#x} meta mark set {TO_ASK:#x} accept
    ct mark {DIRECT:#x} accept
    ct direction reply ct state established,related accept
    meta l4proto tcp tcp flags & (syn | ack | rst | fin) != syn drop
    meta mark set {TO_ASK:#x} accept
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "{LINK_PREFIX}*" accept
    meta mark {TO_AGENT:#x} accept
    ct direction reply ct state established,related accept
    reject with icmpx admin-prohibited
  }}
  chain output {{
    type route hook output priority mangle; policy accept;
    ct direction original ct mark {PROXIED:#x} meta mark set {TO_AGENT:#x}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{ASK}" iifname "{LINK_PREFIX}*" accept
    oifname "{ASK}" drop
    iifname "{CARRY}" oifname "{LINK_PREFIX}*" accept
    iifname "{ASK}" accept
    oifname "{LINK_PREFIX}*" ct mark {DIRECT:#x} accept
    oifname "{LINK_PREFIX}*" ct state established,related accept
    oifname "{LINK_PREFIX}*" drop
    iifname "{LINK_PREFIX}*" ct mark != {DIRECT:#x} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ct mark {DIRECT:#x} oifname != "{LINK_PREFIX}*" oifname != "{ASK}" masquerade
  }}
}}
"#
    )
}

/// `nft`: nothing of it is left.
pub(super) fn no_ruleset() -> &'static str {
    "table inet windlass\ndelete table inet windlass\n"
}

/// `ip`, within the pod's network namespace: its link, address and routes. The other end of the link comes out where the
/// thread `agent` is.
pub(super) fn in_pod(link: &PodLink, interface: &str, mtu: u32, agent: Pid) -> String {
    let PodLink {
        name,
        address,
        own_mac,
        far_mac,
    } = link;
    format!(
        "link set lo up\n\
         link add {interface} address {own_mac} mtu {mtu} type veth peer name {name} address {far_mac} mtu {mtu} netns {}\n\
         link set {interface} up\n\
         addr add {address}/32 dev {interface}\n\
         route add {NEXT_HOP} dev {interface} scope link\n\
         neigh add {NEXT_HOP} lladdr {far_mac} dev {interface} nud permanent\n\
         route add default via {NEXT_HOP} dev {interface}\n",
        agent.as_raw_nonzero()
    )
}

/// `ip`: the other end.
pub(super) fn of_pod(link: &PodLink, gateway: Ipv4Addr) -> String {
    let PodLink {
        name,
        address,
        own_mac,
        ..
    } = link;
    format!(
        "link set {name} up\n\
         neigh replace {address} lladdr {own_mac} dev {name} nud permanent\n\
         route replace {address}/32 dev {name} src {gateway}\n"
    )
}

/// `ip`: removes a link, and with it the other end.
pub(super) fn remove_link(name: &str) -> String {
    format!("link del {name}\n")
}
