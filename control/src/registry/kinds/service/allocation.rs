//! Choosing what a Service must hold alone: an address, node ports, the port of health checks.

use std::net::Ipv4Addr;

use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};

use super::{has_health_check, is_type};
use crate::registry::Pools;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::{integer, items, text};
use crate::registry::strategy::Claim;

/// Random draws before the range is searched in order.
const DRAWS: usize = 16;

type Taken<'a> = &'a dyn Fn(&str) -> bool;

/// Chooses all that `spec` does not name and its type needs.
pub(super) fn allocate(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: Taken<'_>,
) -> Result<(), Vec<FieldError>> {
    if is_type(spec, "ExternalName") {
        return Ok(());
    }
    let mut errors = allocate_address(spec, pools, taken)
        .err()
        .unwrap_or_default();
    errors.extend(allocate_ports(spec, pools, taken));
    errors.extend(allocate_health_check(spec, pools, taken));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// What a Service holds alone.
pub(super) fn claims(object: &Value) -> Vec<Claim> {
    let mut claims = Vec::new();
    let address = text(object, "/spec/clusterIP");
    if !address.is_empty() && address != "None" {
        let detail = "failed to allocate IP: provided IP is already allocated";
        let taken = FieldError::invalid("spec.clusterIPs", json!([address]), detail);
        claims.push(Claim {
            what: format!("ip/{address}"),
            taken,
        });
    }
    let ports = items(object, "/spec/ports").iter().enumerate();
    let ports = ports.map(|(index, port)| {
        let path = format!("spec.ports[{index}].nodePort");
        (path, text(port, "/protocol"), integer(port, "/nodePort"))
    });
    let check = integer(object, "/spec/healthCheckNodePort");
    let check = ("spec.healthCheckNodePort".to_owned(), "TCP", check);
    for (path, protocol, number) in ports.chain([check]).filter(|(.., number)| *number > 0) {
        let taken = FieldError::invalid(path, number, "provided port is already allocated");
        let what = claim_of(protocol, number);
        claims.push(Claim { what, taken });
    }
    claims
}

fn claim_of(protocol: &str, number: impl std::fmt::Display) -> String {
    format!("node-port/{protocol}/{number}")
}

fn allocate_address(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: Taken<'_>,
) -> Result<(), Vec<FieldError>> {
    let wanted = spec.get("clusterIP").and_then(Value::as_str);
    let wanted = wanted.unwrap_or_default().to_owned();
    let is_listed = spec
        .get("clusterIPs")
        .is_some_and(|list| *list != json!([]));
    if !wanted.is_empty() {
        return check_range(&wanted, pools);
    }
    // A list without its first address is validation's to refuse.
    if is_listed {
        return Ok(());
    }
    let Some(address) = free_address(pools, taken) else {
        let detail = "failed to allocate a serviceIP: range is full";
        return Err(vec![FieldError::invalid("spec.clusterIP", "", detail)]);
    };
    spec.insert("clusterIP".into(), address.to_string().into());
    spec.insert("clusterIPs".into(), json!([address.to_string()]));
    Ok(())
}

/// An address that is asked for by name is one the cluster has; what is none is validation's to refuse.
fn check_range(wanted: &str, pools: &Pools) -> Result<(), Vec<FieldError>> {
    let Ok(address) = wanted.parse::<Ipv4Addr>() else {
        return Ok(());
    };
    if contains(pools, address) {
        return Ok(());
    }
    let (network, bits) = pools.service_network;
    let detail = format!(
        "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}/{bits}"
    );
    let path = "spec.clusterIPs";
    Err(vec![FieldError::invalid(path, json!([wanted]), detail)])
}

fn size(pools: &Pools) -> u32 {
    1u32.checked_shl(32 - u32::from(pools.service_network.1))
        .unwrap_or(u32::MAX)
}

fn contains(pools: &Pools, address: Ipv4Addr) -> bool {
    let offset = u32::from(address).wrapping_sub(u32::from(pools.service_network.0));
    offset > 0 && offset < size(pools).saturating_sub(1)
}

/// An address nobody holds: drawn at random, and searched for when the range is nearly full. The
/// lowest addresses are left to those who ask for one by name, as the cluster's own Services do.
fn free_address(pools: &Pools, taken: Taken<'_>) -> Option<Ipv4Addr> {
    let base = u32::from(pools.service_network.0);
    let last = size(pools).saturating_sub(2);
    let reserved = (last / 16).clamp(1, 256).min(last);
    let mut rng = rand::rng();
    let drawn = (0..DRAWS)
        .map(|_| rng.random_range(reserved..=last))
        .collect::<Vec<_>>();
    let rest = (reserved..=last).chain(1..reserved);
    drawn
        .into_iter()
        .chain(rest)
        .map(|offset| Ipv4Addr::from(base + offset))
        .find(|address| !taken(&format!("ip/{address}")))
}

/// Gives each port the node port it needs. Ports of one number and several protocols share theirs.
fn allocate_ports(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: Taken<'_>,
) -> Vec<FieldError> {
    let balances = is_type(spec, "LoadBalancer");
    let declined = spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    let chooses = is_type(spec, "NodePort") || (balances && !declined);
    let mut errors = Vec::new();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    let Some(ports) = ports.filter(|_| chooses || balances) else {
        return errors;
    };
    let mut chosen = Chosen::of(ports);
    for (index, port) in ports.iter_mut().enumerate() {
        let path = format!("spec.ports[{index}].nodePort");
        let number = integer(port, "/nodePort");
        if number != 0 {
            errors.extend(out_of_range(&path, number, pools));
        } else if chooses {
            let Some(number) = chosen.next(port, pools, taken) else {
                let detail = "failed to allocate a nodePort: range is full";
                errors.push(FieldError::invalid(path, 0, detail));
                continue;
            };
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".into(), number.into());
            }
        }
    }
    errors
}

/// Node ports of the Service so far: number of the port, protocol, node port.
struct Chosen(Vec<(i64, String, i64)>);

impl Chosen {
    fn of(ports: &[Value]) -> Self {
        let named = ports.iter().filter(|port| integer(port, "/nodePort") != 0);
        let named = named.map(|port| {
            let protocol = text(port, "/protocol").to_owned();
            (integer(port, "/port"), protocol, integer(port, "/nodePort"))
        });
        Self(named.collect())
    }

    /// A node port for `port`, noted as chosen.
    fn next(&mut self, port: &Value, pools: &Pools, taken: Taken<'_>) -> Option<i64> {
        let (number, protocol) = (integer(port, "/port"), text(port, "/protocol"));
        let is_free = |node_port: i64| {
            let ours = |(_, of, n): &(i64, String, i64)| of == protocol && *n == node_port;
            !self.0.iter().any(ours) && !taken(&claim_of(protocol, node_port))
        };
        let of_sibling = self.0.iter().find(|(of, ..)| *of == number);
        let shared = of_sibling.map(|(.., node_port)| *node_port);
        let free = |node_port: &u16| is_free(i64::from(*node_port));
        let node_port = shared
            .filter(|node_port| is_free(*node_port))
            .or_else(|| draw_port(pools, &mut rand::rng(), &free).map(i64::from))?;
        self.0.push((number, protocol.to_owned(), node_port));
        Some(node_port)
    }
}

fn out_of_range(path: &str, number: i64, pools: &Pools) -> Option<FieldError> {
    let range = &pools.node_ports;
    let inside = u16::try_from(number).is_ok_and(|number| range.contains(&number));
    let detail = format!(
        "provided port is not in the valid range. The range of valid ports is {}-{}",
        range.start(),
        range.end()
    );
    (!inside).then(|| FieldError::invalid(path, number, detail))
}

fn allocate_health_check(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: Taken<'_>,
) -> Option<FieldError> {
    const PATH: &str = "spec.healthCheckNodePort";
    if !has_health_check(spec) {
        return None;
    }
    let number = spec.get("healthCheckNodePort").and_then(Value::as_i64);
    if let Some(number) = number.filter(|number| *number != 0) {
        return out_of_range(PATH, number, pools);
    }
    let ports = spec.get("ports").and_then(Value::as_array);
    let used: Vec<_> = ports
        .into_iter()
        .flatten()
        .map(|port| integer(port, "/nodePort"))
        .collect();
    let free =
        |number: &u16| !used.contains(&i64::from(*number)) && !taken(&claim_of("TCP", number));
    let Some(number) = draw_port(pools, &mut rand::rng(), &free) else {
        let detail = "failed to allocate a nodePort: range is full";
        return Some(FieldError::invalid(PATH, 0, detail));
    };
    spec.insert("healthCheckNodePort".into(), number.into());
    None
}

fn draw_port(pools: &Pools, rng: &mut impl Rng, free: &dyn Fn(&u16) -> bool) -> Option<u16> {
    let drawn: Vec<_> = (0..DRAWS)
        .map(|_| rng.random_range(pools.node_ports.clone()))
        .collect();
    drawn.into_iter().chain(pools.node_ports.clone()).find(free)
}

#[cfg(test)]
mod tests {
    use super::super::{Service, service};
    use super::*;
    use crate::registry::strategy::Strategy;

    fn small() -> Pools {
        Pools {
            service_network: (Ipv4Addr::new(10, 0, 0, 0), 28),
            node_ports: 30000..=30003,
        }
    }

    fn allocated(spec: &Value, pools: &Pools, taken: Taken<'_>) -> Value {
        let mut object = service(spec);
        Service.allocate(None, &mut object, pools, taken).unwrap();
        object
    }

    #[test]
    fn a_node_port_service_gets_an_address_and_ports_that_are_free() {
        let pools = Pools {
            node_ports: 30000..=30001,
            ..Pools::default()
        };
        let taken = |claim: &str| claim == "node-port/TCP/30000";
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let object = allocated(&spec, &pools, &taken);
        assert_eq!(integer(&object, "/spec/ports/0/nodePort"), 30001);
        assert_eq!(integer(&object, "/spec/ports/0/targetPort"), 80);
        let address = text(&object, "/spec/clusterIP").parse().unwrap();
        assert!(contains(&pools, address));
        assert_eq!(Service.claims(&object).len(), 2);
    }

    #[test]
    fn protocols_of_one_port_share_their_node_port() {
        let spec = json!({"type": "NodePort", "ports": [
            {"port": 53, "name": "a"}, {"port": 53, "name": "b", "protocol": "UDP"}]});
        let object = allocated(&spec, &Pools::default(), &|_| false);
        let node_port = |index| integer(&object, &format!("/spec/ports/{index}/nodePort"));
        assert_eq!(node_port(0), node_port(1));
    }

    #[test]
    fn a_local_load_balancer_gets_a_port_for_health_checks() {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
        let object = allocated(&spec, &small(), &|_| false);
        assert_eq!(integer(&object, "/spec/ports/0/nodePort"), 0);
        assert!(integer(&object, "/spec/healthCheckNodePort") >= 30000);
        assert_eq!(Service.validate(&object), []);
    }

    #[test]
    fn a_full_range_is_an_error_and_not_a_loop() {
        let mut object = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let everything = |_: &str| true;
        let errors = Service.allocate(None, &mut object, &small(), &everything);
        assert_eq!(errors.map_err(|errors| errors.len()), Err(2));
    }

    #[test]
    fn every_address_of_a_small_range_is_found() {
        let last_free = |claim: &str| claim != "ip/10.0.0.1";
        assert_eq!(
            free_address(&small(), &last_free),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
    }
}
