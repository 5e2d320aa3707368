//! Value transformers: what stands between the index and the durable log.
//!
//! A transformer sees every value on its way to the log and back, so what it does (encryption at rest)
//! covers current objects and history alike, and the index above never knows.

use super::ObjectKey;

/// Turns values into what is written, and back.
pub trait Transform: Send + 'static {
    /// What to write for `value`; the key may serve as associated data.
    ///
    /// # Errors
    /// A text that says why the value cannot be sealed.
    fn seal(&self, key: &ObjectKey, value: Vec<u8>) -> Result<Vec<u8>, String>;

    /// The value that was sealed.
    ///
    /// # Errors
    /// A text that says why the stored value cannot be opened.
    fn open(&self, key: &ObjectKey, stored: Vec<u8>) -> Result<Vec<u8>, String>;
}

/// Writes values as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Transform for Plain {
    fn seal(&self, _key: &ObjectKey, value: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(value)
    }

    fn open(&self, _key: &ObjectKey, stored: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(stored)
    }
}
