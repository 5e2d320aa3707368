//! What kind of program a component is, and whether everything it imports is offered.
//!
//! Versions are matched by track: 0.2.x satisfies any 0.2.y, as semantic versioning has it for WASI.

use std::fmt;
use std::sync::Arc;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi::p2::bindings::CommandPre as P2Command;
use wasmtime_wasi::p3::bindings::CommandPre as P3Command;

use crate::http::HttpPre;
use crate::state::InstanceState;

/// A component, linked and ready to run.
#[derive(Clone)]
pub enum World {
    /// Exports `wasi:cli/run` 0.2.
    CommandP2(Arc<P2Command<InstanceState>>),
    /// Exports `wasi:cli/run` 0.3.
    CommandP3(Arc<P3Command<InstanceState>>),
    /// Exports a `wasi:http` handler.
    Http(Arc<HttpPre>),
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandP2(_) => "wasi:cli/command@0.2",
            Self::CommandP3(_) => "wasi:cli/command@0.3",
            Self::Http(_) => "wasi:http/proxy",
        })
    }
}

/// Why a component can't run here.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Imports that this host does not offer.
    #[error("the component imports what this host does not offer: {}", .0.join(", "))]
    MissingImports(Vec<String>),
    /// No export that says how to run it.
    #[error(
        "the component exports neither wasi:cli/run nor a wasi:http handler; it exports {}",
        if .0.is_empty() { "nothing".to_owned() } else { .0.join(", ") }
    )]
    NoKnownExport(Vec<String>),
    /// An import or an export has not the type it should have.
    #[error("the component can't be linked: {0:#}")]
    Link(wasmtime::Error),
}

/// Every interface that is offered, with its version track.
pub const OFFERED: &[(&str, &str)] = &[
    ("wasi:cli/environment", "0.2"),
    ("wasi:cli/exit", "0.2"),
    ("wasi:cli/stderr", "0.2"),
    ("wasi:cli/stdin", "0.2"),
    ("wasi:cli/stdout", "0.2"),
    ("wasi:cli/terminal-input", "0.2"),
    ("wasi:cli/terminal-output", "0.2"),
    ("wasi:cli/terminal-stderr", "0.2"),
    ("wasi:cli/terminal-stdin", "0.2"),
    ("wasi:cli/terminal-stdout", "0.2"),
    ("wasi:clocks/monotonic-clock", "0.2"),
    ("wasi:clocks/wall-clock", "0.2"),
    ("wasi:filesystem/preopens", "0.2"),
    ("wasi:filesystem/types", "0.2"),
    ("wasi:http/outgoing-handler", "0.2"),
    ("wasi:http/types", "0.2"),
    ("wasi:io/error", "0.2"),
    ("wasi:io/poll", "0.2"),
    ("wasi:io/streams", "0.2"),
    ("wasi:random/insecure", "0.2"),
    ("wasi:random/insecure-seed", "0.2"),
    ("wasi:random/random", "0.2"),
    ("wasi:sockets/instance-network", "0.2"),
    ("wasi:sockets/ip-name-lookup", "0.2"),
    ("wasi:sockets/network", "0.2"),
    ("wasi:sockets/tcp", "0.2"),
    ("wasi:sockets/tcp-create-socket", "0.2"),
    ("wasi:sockets/udp", "0.2"),
    ("wasi:sockets/udp-create-socket", "0.2"),
    ("wasi:cli/environment", "0.3"),
    ("wasi:cli/exit", "0.3"),
    ("wasi:cli/stderr", "0.3"),
    ("wasi:cli/stdin", "0.3"),
    ("wasi:cli/stdout", "0.3"),
    ("wasi:cli/terminal-input", "0.3"),
    ("wasi:cli/terminal-output", "0.3"),
    ("wasi:cli/terminal-stderr", "0.3"),
    ("wasi:cli/terminal-stdin", "0.3"),
    ("wasi:cli/terminal-stdout", "0.3"),
    ("wasi:clocks/monotonic-clock", "0.3"),
    ("wasi:clocks/system-clock", "0.3"),
    ("wasi:filesystem/preopens", "0.3"),
    ("wasi:filesystem/types", "0.3"),
    ("wasi:http/client", "0.3"),
    ("wasi:http/types", "0.3"),
    ("wasi:random/insecure", "0.3"),
    ("wasi:random/insecure-seed", "0.3"),
    ("wasi:random/random", "0.3"),
    ("wasi:sockets/ip-name-lookup", "0.3"),
    ("wasi:sockets/types", "0.3"),
];

impl World {
    /// Whether others hold this component too.
    pub fn is_in_use(&self) -> bool {
        let holders = match self {
            Self::CommandP2(pre) => Arc::strong_count(pre),
            Self::CommandP3(pre) => Arc::strong_count(pre),
            Self::Http(pre) => Arc::strong_count(pre),
        };
        holders > 1
    }

    fn component(&self) -> &Component {
        match self {
            Self::CommandP2(pre) => pre.instance_pre().component(),
            Self::CommandP3(pre) => pre.instance_pre().component(),
            Self::Http(pre) => pre.component(),
        }
    }

    /// What the component exports, with versions.
    pub fn exports(&self) -> Vec<String> {
        let component = self.component();
        let ty = component.component_type();
        let exports = ty.exports(component.engine());
        exports.map(|(name, _)| name.to_owned()).collect()
    }

    /// What the component imports, with versions; without what it imports only types of.
    pub fn imports(&self) -> Vec<String> {
        let component = self.component();
        let ty = component.component_type();
        let imports = ty.imports(component.engine()).map(|(name, _)| name);
        imports
            .filter(|name| !holds_only_types(component, name))
            .map(str::to_owned)
            .collect()
    }

    /// Links a component and finds out how to run it. `host` names the interfaces that the linker offers beside WASI,
    /// without versions.
    ///
    /// # Errors
    /// [`WorldError`], naming every import that is missing.
    pub fn link(
        linker: &Linker<InstanceState>,
        host: &[String],
        component: &Component,
    ) -> Result<Self, WorldError> {
        let engine = linker.engine();
        let component_type = component.component_type();
        let missing: Vec<_> = component_type
            .imports(engine)
            .map(|(name, _)| name)
            .filter(|name| !is_offered(name, host) && !holds_only_types(component, name))
            .map(str::to_owned)
            .collect();
        if !missing.is_empty() {
            return Err(WorldError::MissingImports(missing));
        }
        let exports: Vec<_> = component_type
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let how = exports
            .iter()
            .find_map(|name| HOW_TO_RUN.iter().find(|(known, _)| on_track(name, known)))
            .map(|(_, how)| how)
            .ok_or(WorldError::NoKnownExport(exports))?;
        let pre = linker
            .instantiate_pre(component)
            .map_err(WorldError::Link)?;
        how(pre).map_err(WorldError::Link)
    }
}

type HowToRun = fn(InstancePre<InstanceState>) -> wasmtime::Result<World>;

/// The exports that make a component a program.
const HOW_TO_RUN: &[((&str, &str), HowToRun)] = &[
    (("wasi:http/incoming-handler", "0.2"), |pre| {
        Ok(World::Http(Arc::new(HttpPre::p2(pre)?)))
    }),
    (("wasi:http/handler", "0.3"), |pre| {
        Ok(World::Http(Arc::new(HttpPre::p3(pre)?)))
    }),
    (("wasi:cli/run", "0.2"), |pre| {
        Ok(World::CommandP2(Arc::new(P2Command::new(pre)?)))
    }),
    (("wasi:cli/run", "0.3"), |pre| {
        Ok(World::CommandP3(Arc::new(P3Command::new(pre)?)))
    }),
];

fn is_offered(import: &str, host: &[String]) -> bool {
    let (interface, _) = import.split_once('@').unwrap_or((import, ""));
    OFFERED.iter().any(|offer| on_track(import, offer)) || host.iter().any(|name| name == interface)
}

/// Whether `name` is an interface's name with a version on its track.
fn on_track(name: &str, (interface, track): &(&str, &str)) -> bool {
    let Some((given, version)) = name.split_once('@') else {
        return false;
    };
    let rest = version.strip_prefix(track);
    given == *interface && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether an imported interface has nothing to call: the linker needs nothing for it.
fn holds_only_types(component: &Component, import: &str) -> bool {
    let engine = component.engine();
    let component_type = component.component_type();
    let Some(import) = component_type.get_import(engine, import) else {
        return false;
    };
    let ComponentItem::ComponentInstance(instance) = import.ty else {
        return false;
    };
    instance
        .exports(engine)
        .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
}

#[cfg(test)]
mod tests {
    use super::on_track;

    #[test]
    fn versions_match_by_track() {
        let run = ("wasi:cli/run", "0.2");
        for (name, want) in [
            ("wasi:cli/run@0.2.0", true),
            ("wasi:cli/run@0.2.12", true),
            ("wasi:cli/run@0.2", true),
            ("wasi:cli/run@0.3.0", false),
            ("wasi:cli/run@0.20.0", false),
            ("wasi:cli/run", false),
            ("wasi:cli/runs@0.2.0", false),
        ] {
            assert_eq!(on_track(name, &run), want, "{name}");
        }
    }
}
