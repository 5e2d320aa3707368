//! Core modules of WASI 0.1.
//!
//! A core module is made into a component with wasmtime's own adapter, so that there is one linker,
//! one view of files and one set of limits for everything that runs. The price: of an exit code
//! only success or failure is left.

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use super::compiler::CompileError;

/// How a core module begins: the magic number, version 1, layer 0.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component as it is; a core module as a component.
///
/// # Errors
/// [`CompileError::NotAdaptable`] for a core module that imports anything but WASI 0.1.
pub(super) fn into_component(bytes: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    if !bytes.starts_with(CORE_MODULE) {
        return Ok(bytes);
    }
    let adapted = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| {
            let adapter = WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER;
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)
        })
        .and_then(|mut encoder| encoder.encode());
    adapted.map_err(|error| CompileError::NotAdaptable(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_module_of_wasi_becomes_a_component() {
        let module = wat::parse_str(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const 0))))"#,
        );
        let component = into_component(module.unwrap()).unwrap();
        assert_eq!(component[..8], *b"\0asm\x0d\0\x01\0");
        assert_eq!(into_component(component.clone()).unwrap(), component);
    }

    #[test]
    fn a_core_module_that_wants_something_else_is_refused_by_name() {
        let module = wat::parse_str(r#"(module (import "env" "magic" (func)))"#).unwrap();
        let text = into_component(module).unwrap_err().to_string();
        assert!(text.contains("env"), "{text}");
    }
}
