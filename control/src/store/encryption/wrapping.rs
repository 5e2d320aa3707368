//! Keys that wrap keys.
//!
//! Each process draws a key of its own for each wrapping key it writes with (the data key), stores it with every value,
//! wrapped, and counts its nonces up from zero:
//!
//! ```text
//! 2 | length of the name u8 | name of the wrapping key | nonce | wrapped data key and tag | nonce | value and tag
//! 3 | length of the name u8 | name of the plugin | length u16 | wrapped data key | nonce | value and tag
//! ```
//!
//! Values are sealed by AES-GCM with nonces of 12 bytes; the object's key is associated data, so no value can be passed
//! off as another object's. In the first form a wrapping key of ours is used once per process, with a random nonce; in
//! the second a plugin wraps. A data key is never used twice with one nonce.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::kms::Kms;
use crate::store::ObjectKey;

/// First bytes of sealed values; plain ones begin with less.
pub(super) const SEALED: [u8; 2] = [BY_KEY, BY_PLUGIN];
const BY_KEY: u8 = 2;
const BY_PLUGIN: u8 = 3;
/// Bytes of a data key.
const DATA_KEY: usize = 32;
const TAG: usize = 16;
/// A data key wrapped by a key of ours, with its nonce.
const WRAPPED: usize = NONCE_LEN + DATA_KEY + TAG;

const NO_RANDOMNESS: &str = "the value cannot be encrypted: no randomness";
const CANNOT_DECRYPT: &str =
    "and cannot be decrypted: that is another key, or the value was changed";

/// A key that wraps data keys.
pub(super) struct WrappingKey {
    name: String,
    wrapper: Wrapper,
    /// The process' own data key.
    own: Mutex<Option<DataKey>>,
    /// Data keys of other processes, by their wrapped form.
    known: Mutex<HashMap<Vec<u8>, Arc<LessSafeKey>>>,
}

enum Wrapper {
    Key(Box<LessSafeKey>),
    Plugin(Kms),
}

struct DataKey {
    key: LessSafeKey,
    wrapped: Vec<u8>,
    writes: u64,
}

/// # Errors
/// Why it cannot be the name of a key.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > usize::from(u8::MAX) {
        return Err("a name has 1 to 255 bytes");
    }
    Ok(())
}

impl WrappingKey {
    /// A key that is at hand.
    pub(super) fn local(name: &str, key: LessSafeKey) -> Self {
        Self::new(name, Wrapper::Key(Box::new(key)))
    }

    /// The key behind a plugin.
    pub(super) fn kms(name: &str, kms: Kms) -> Self {
        Self::new(name, Wrapper::Plugin(kms))
    }

    fn new(name: &str, wrapper: Wrapper) -> Self {
        Self {
            name: name.to_owned(),
            wrapper,
            own: Mutex::new(None),
            known: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value sealed so would be sealed with the same key if it were written now.
    pub(super) fn would_write(&self, sealed: &Sealed<'_>) -> bool {
        let is_own = self.name.as_bytes() == sealed.name;
        is_own
            && match &self.wrapper {
                Wrapper::Key(_) => true,
                Wrapper::Plugin(kms) => kms.is_current(sealed.wrapped),
            }
    }

    /// A new data key, wrapped.
    fn data_key(&self) -> Result<DataKey, String> {
        let random = SystemRandom::new();
        let mut secret = [0; DATA_KEY];
        random.fill(&mut secret).map_err(|_| NO_RANDOMNESS)?;
        let key = UnboundKey::new(&AES_256_GCM, &secret).map_err(|_| NO_RANDOMNESS)?;
        let wrapped = match &self.wrapper {
            Wrapper::Key(wrapping) => self.wrap(wrapping, secret)?,
            Wrapper::Plugin(kms) => kms.wrap(&secret)?,
        };
        Ok(DataKey {
            key: LessSafeKey::new(key),
            wrapped,
            writes: 0,
        })
    }

    fn wrap(&self, wrapping: &LessSafeKey, mut secret: [u8; DATA_KEY]) -> Result<Vec<u8>, String> {
        let mut nonce = [0; NONCE_LEN];
        let filled = SystemRandom::new().fill(&mut nonce);
        filled.map_err(|_| NO_RANDOMNESS)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.name.as_bytes());
        let tag = wrapping.seal_in_place_separate_tag(unique, aad, &mut secret);
        let tag = tag.map_err(|_| NO_RANDOMNESS)?;
        Ok([&nonce[..], &secret[..], tag.as_ref()].concat())
    }

    /// The sealed form of a value.
    ///
    /// # Errors
    /// Why there is no key to seal it with.
    pub(super) fn seal(&self, key: &ObjectKey, mut value: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |data: &DataKey| match &self.wrapper {
            Wrapper::Key(_) => true,
            Wrapper::Plugin(kms) => kms.is_current(&data.wrapped),
        };
        let data = match own.take().filter(is_good) {
            Some(data) => own.insert(data),
            None => own.insert(self.data_key()?),
        };
        let mut nonce = [0; NONCE_LEN];
        let (_, counter) = nonce.split_at_mut(NONCE_LEN - 8);
        counter.copy_from_slice(&data.writes.to_be_bytes());
        data.writes += 1;
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(key.as_str().as_bytes());
        let sealed = data.key.seal_in_place_append_tag(unique, aad, &mut value);
        sealed.map_err(|_| "the value is too long to be encrypted")?;
        let length =
            |length: usize| u16::try_from(length).map_err(|_| "the wrapped key is too long");
        let name = u8::try_from(self.name.len()).map_err(|_| "the key's name is too long")?;
        let mut sealed =
            Vec::with_capacity(4 + self.name.len() + data.wrapped.len() + NONCE_LEN + value.len());
        match self.wrapper {
            Wrapper::Key(_) => {
                sealed.extend([BY_KEY, name]);
                sealed.extend_from_slice(self.name.as_bytes());
            }
            Wrapper::Plugin(_) => {
                sealed.extend([BY_PLUGIN, name]);
                sealed.extend_from_slice(self.name.as_bytes());
                sealed.extend(length(data.wrapped.len())?.to_be_bytes());
            }
        }
        sealed.extend_from_slice(&data.wrapped);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&value);
        Ok(sealed)
    }

    /// The value that was sealed.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(super) fn open(&self, key: &ObjectKey, sealed: &Sealed<'_>) -> Result<Vec<u8>, String> {
        let data = self.unwrap(sealed.wrapped)?;
        let mut value = sealed.value.to_vec();
        let aad = Aad::from(key.as_str().as_bytes());
        let nonce = Nonce::assume_unique_for_key(*sealed.nonce);
        let opened = data.open_in_place(nonce, aad, &mut value);
        let length = opened.map_err(|_| CANNOT_DECRYPT)?.len();
        value.truncate(length);
        Ok(value)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Arc<LessSafeKey>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(wrapped) {
            return Ok(Arc::clone(key));
        }
        let secret = match &self.wrapper {
            Wrapper::Key(wrapping) => self.unwrap_by(wrapping, wrapped).ok_or(CANNOT_DECRYPT)?,
            Wrapper::Plugin(kms) => kms.unwrap(wrapped)?,
        };
        let key = UnboundKey::new(&AES_256_GCM, &secret).map_err(|_| CANNOT_DECRYPT)?;
        let key = Arc::new(LessSafeKey::new(key));
        known.insert(wrapped.to_vec(), Arc::clone(&key));
        Ok(key)
    }

    fn unwrap_by(&self, wrapping: &LessSafeKey, wrapped: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut secret = rest.to_vec();
        let aad = Aad::from(self.name.as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = wrapping.open_in_place(nonce, aad, &mut secret).ok()?.len();
        secret.truncate(length);
        Some(secret)
    }
}

/// The parts of a sealed value.
pub(super) struct Sealed<'a> {
    pub(super) name: &'a [u8],
    wrapped: &'a [u8],
    nonce: &'a [u8; NONCE_LEN],
    value: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// `None` if it is cut off.
    pub(super) fn read(stored: &'a [u8]) -> Option<Self> {
        let ([form, length], rest) = stored.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (wrapped, rest) = match *form {
            BY_KEY => rest.split_at_checked(WRAPPED)?,
            BY_PLUGIN => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?
            }
            _ => return None,
        };
        let (nonce, value) = rest.split_first_chunk::<NONCE_LEN>()?;
        Some(Self {
            name,
            wrapped,
            nonce,
            value,
        })
    }
}
