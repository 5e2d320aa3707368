//! What a container runs, in the words of `node.windlass.dev/v1`: what its component imports, what stands behind
//! each of that, and what bounds it.

use std::time::Instant;

use windlass_api::grants::Interfaces;
use windlass_api::node_info::{Component, Import, Limits};
use windlass_wasi_shims::world::World;

use super::Parts;
use super::cache::Loaded;
use crate::runtime::{ContainerSpec, StartError};

/// Says what stands behind an interface in a container.
type Behind = fn(&ContainerSpec) -> String;

/// Prefixes of interfaces and what stands behind them; the first that fits counts.
const BEHIND: &[(&str, Behind)] = &[
    ("wasi:filesystem/", volumes),
    ("wasi:sockets/", network),
    ("wasi:http/", network),
    ("wasi:cli/environment", |_| {
        "arguments and environment of the container".to_owned()
    }),
    ("wasi:cli/std", |_| {
        "standard input and the log of the container".to_owned()
    }),
    ("wasi:cli/", |_| "the runtime".to_owned()),
    ("wasi:clocks/", |_| "clocks of the node".to_owned()),
    ("wasi:random/", |_| "random numbers of the node".to_owned()),
    ("wasi:io/", |_| "the runtime".to_owned()),
];

fn volumes(spec: &ContainerSpec) -> String {
    let mut paths: Vec<_> = spec
        .mounts
        .iter()
        .map(|mount| match mount.read_only {
            true => format!("{} (read only)", mount.path),
            false => mount.path.clone(),
        })
        .collect();
    if paths.is_empty() {
        return "no volume: nothing is there".to_owned();
    }
    paths.sort_unstable();
    format!("volumes at {}", paths.join(", "))
}

fn network(spec: &ContainerSpec) -> String {
    let egress = spec.grants().ok().and_then(|grants| grants.egress);
    let egress = egress.unwrap_or_default().name();
    format!("network of the pod, egress: {egress}")
}

/// Describes a container whose start began at `begin` and ends now.
pub(super) fn describe(
    parts: &Parts,
    spec: &ContainerSpec,
    loaded: &Loaded,
    begin: Instant,
) -> Result<Component, StartError> {
    let grants = spec.grants()?;
    let interfaces = grants.interfaces.unwrap_or_default();
    let of_host = grants.host_interfaces.unwrap_or(Interfaces::NONE);
    let import = |interface: String| {
        if parts.host.include(&interface) {
            return Import {
                granted: of_host.include(&interface),
                by: "the program that hosts the node agent".to_owned(),
                interface,
            };
        }
        let behind = BEHIND
            .iter()
            .find(|(prefix, _)| interface.starts_with(prefix));
        Import {
            granted: interfaces.include(&interface),
            by: behind.map_or_else(String::new, |(_, by)| by(spec)),
            interface,
        }
    };
    let requests = match loaded.world {
        World::Http(_) => grants.requests_per_instance.unwrap_or(1),
        World::CommandP2(_) | World::CommandP3(_) => 0,
    };
    Ok(Component {
        name: spec.name.clone(),
        image: spec.image.reference.clone(),
        digest: spec.image.blob_digest.to_string(),
        world: format!("{:?}", loaded.world),
        imports: loaded.world.imports().into_iter().map(import).collect(),
        exports: loaded.world.exports(),
        limits: Limits {
            memory_bytes: spec.limits.memory_bytes,
            cpu_millis: spec.limits.cpu_millis,
            requests_per_instance: requests as u64,
            egress: grants.egress.unwrap_or_default().name().to_owned(),
        },
        compile_milliseconds: loaded.compiling.map(|it| millis(it.as_millis())),
        start_microseconds: millis(begin.elapsed().as_micros()),
        ..Component::default()
    })
}

fn millis(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
