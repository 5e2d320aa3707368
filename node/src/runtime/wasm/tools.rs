//! Components that the node offers to every container: instantiated with the container's grants, when they are called.
//!
//! They are built from `node/tools` by this crate's build script. `tar` and `test` are what `kubectl cp` calls.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use windlass_oci::digest::Digest;

include!(concat!(env!("OUT_DIR"), "/tools.rs"));

/// A component that every container can be asked to run.
#[derive(Clone, Debug)]
pub struct Tool {
    name: String,
    wasm: Bytes,
    /// Computed when it is first called, and shared by clones.
    digest: Arc<OnceLock<Digest>>,
}

impl Tool {
    /// A component, and what it is called by.
    #[must_use]
    pub fn new(name: impl Into<String>, wasm: Bytes) -> Self {
        Self {
            name: name.into(),
            wasm,
            digest: Arc::default(),
        }
    }

    pub(super) fn wasm(&self) -> &Bytes {
        &self.wasm
    }

    /// The digest of the component. Blocks the first time.
    pub(super) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| Digest::sha256(&self.wasm))
    }
}

/// The tools of a node.
#[derive(Clone, Debug)]
pub struct Tools {
    all: Vec<Tool>,
    missing: Option<&'static str>,
}

impl Default for Tools {
    /// Those that were built into this crate.
    fn default() -> Self {
        let tool =
            |(name, wasm): &(&str, &'static [u8])| Tool::new(*name, Bytes::from_static(wasm));
        Self {
            all: BUILT.iter().map(tool).collect(),
            missing: MISSING,
        }
    }
}

impl Tools {
    /// Just these.
    #[must_use]
    pub const fn of(all: Vec<Tool>) -> Self {
        Self { all, missing: None }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Tool> {
        self.all.iter().find(|tool| tool.name == name)
    }

    /// What there is, in words.
    pub(super) fn describe(&self) -> String {
        if let Some(reason) = self.missing {
            return format!("this node agent was built without tools ({reason})");
        }
        let names: Vec<_> = self.all.iter().map(|tool| tool.name.as_str()).collect();
        if names.is_empty() {
            return "the node has no tools".to_owned();
        }
        format!("the node has {}", names.join(", "))
    }
}
