//! `/etc/hosts` of a pod, as kubelet writes it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, PodSpec};

const OWN: &str = "# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";
const OF_HOST: &str = "# Kubernetes-managed hosts file (host network).\n";
const ALIASES: &str = "\n# Entries added by HostAliases.\n";

/// What the file says. In the host's network that is what the host's own says, and the pod's aliases.
pub(in crate::runtime::containerd) fn text(
    spec: &PodSpec,
    host_name: &str,
    ip: IpAddr,
    of_host: &str,
) -> String {
    let mut text = if spec.host_network == Some(true) {
        format!("{OF_HOST}{of_host}")
    } else {
        let name = match host_name.split_once('.') {
            Some((short, _)) => format!("{host_name}\t{short}"),
            None => host_name.to_owned(),
        };
        format!("{OWN}{ip}\t{name}\n")
    };
    let aliases = spec.host_aliases.iter().flatten();
    let mut aliases = aliases.map(alias).peekable();
    if aliases.peek().is_some() {
        text.push_str(ALIASES);
        text.extend(aliases);
    }
    text
}

fn alias(alias: &HostAlias) -> String {
    let names = alias.hostnames.as_deref().unwrap_or_default();
    format!("{}\t{}\n", alias.ip, names.join("\t"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_has_the_pods_name_and_its_aliases() {
        let ip = "10.0.0.1".parse().unwrap();
        let spec = json!({ "containers": [], "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b.c"] }] });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let found = text(&spec, "h.s.ns.svc.cluster.local", ip, "");
        assert!(found.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        let end = "\n10.0.0.1\th.s.ns.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb.c\n";
        assert!(found.ends_with(end), "{found}");
        let plain: PodSpec = serde_json::from_value(json!({ "containers": [] })).unwrap();
        assert!(text(&plain, "p", ip, "").ends_with("\n10.0.0.1\tp\n"));
    }

    #[test]
    fn in_the_hosts_network_the_hosts_names_are_known() {
        let spec = json!({ "containers": [], "hostNetwork": true });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let found = text(&spec, "", "10.0.0.1".parse().unwrap(), "127.0.0.1 box\n");
        assert_eq!(
            found,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 box\n"
        );
    }
}
