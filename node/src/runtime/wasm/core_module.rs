//! Core modules of WASI 0.1.
//!
//! A core module is made into a component with wasmtime's own adapter, so that it sees the same
//! files and limits as every component does.

use super::compiler::CompileError;

/// The layer field of a binary: 0 is a core module, 1 a component.
const LAYER: usize = 6;

/// A component as it is; a core module as a component.
pub(super) fn into_component(bytes: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    let is_core = bytes.starts_with(b"\0asm") && bytes.get(LAYER) == Some(&0);
    if !is_core {
        return Ok(bytes);
    }
    Err(CompileError::NotAdaptable(
        "core modules are not supported yet".to_owned(),
    ))
}
