//! Bounds of an instance's memory, and what it has used.
//!
//! A container may run many instances (an http component runs one per request or a few), so the
//! account is shared: [`Memory`] belongs to the container, [`Limits`] to one store.
//!
//! Invariant: what a store has charged is given back when its [`Limits`] are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

/// Elements all tables of a store may grow to; a table entry costs a pointer of host memory.
const MAX_TABLE_ELEMENTS: usize = 1_000_000;

/// Core instances, memories and tables of one store: enough for any composed component.
const MAX_CORE_ITEMS: usize = 1000;

/// The linear memory of a container: all its instances together.
#[derive(Debug)]
pub struct Memory {
    limit: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
    denied: AtomicBool,
}

impl Memory {
    /// An account with this limit in bytes; `None` is bounded by the engine alone.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(bytes(limit)),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            denied: AtomicBool::new(false),
        })
    }

    /// The limit in bytes, if there is one.
    pub fn limit(&self) -> Option<u64> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != usize::MAX).then_some(limit as u64)
    }

    /// Sets another limit; `false` if more is in use already, and the limit stays as it was.
    ///
    /// Who grows at the same moment is measured by either limit.
    pub fn set_limit(&self, limit: Option<u64>) -> bool {
        let limit = bytes(limit);
        let fits = self.used() <= limit;
        if fits {
            self.limit.store(limit, Ordering::Relaxed);
        }
        fits
    }

    /// Bytes in use now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes there were in use.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Whether an instance asked for more than the limit since this was last asked.
    pub fn take_denied(&self) -> bool {
        self.denied.swap(false, Ordering::Relaxed)
    }

    fn charge(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let charged = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|total| *total <= limit)
            });
        match charged {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                true
            }
            Err(_) => {
                self.denied.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

fn bytes(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// The limiter of one store.
#[derive(Debug)]
pub struct Limits {
    memory: Arc<Memory>,
    charged: usize,
}

impl Limits {
    /// A limiter that charges `memory`.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, charged: 0 }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let granted = self.memory.charge(more);
        if granted {
            self.charged += more;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_CORE_ITEMS
    }

    fn memories(&self) -> usize {
        MAX_CORE_ITEMS
    }

    fn tables(&self) -> usize {
        MAX_CORE_ITEMS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_one_limit_and_give_back_what_they_used() {
        let memory = Memory::new(Some(100));
        let mut one = Limits::new(memory.clone());
        let mut two = Limits::new(memory.clone());
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(!two.memory_growing(0, 41, None).unwrap());
        assert!(memory.take_denied());
        assert!(!memory.take_denied());
        drop(one);
        assert!(two.memory_growing(0, 100, None).unwrap());
        assert_eq!((memory.used(), memory.peak()), (100, 100));
        drop(two);
        assert_eq!((memory.used(), memory.peak()), (0, 100));
    }

    #[test]
    fn a_limit_is_never_set_below_what_is_used() {
        let memory = Memory::new(None);
        let mut one = Limits::new(memory.clone());
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(!memory.set_limit(Some(59)));
        assert_eq!(memory.limit(), None);
        assert!(memory.set_limit(Some(60)));
        assert!(!one.memory_growing(60, 61, None).unwrap());
        assert!(memory.set_limit(Some(61)));
        assert!(one.memory_growing(60, 61, None).unwrap());
    }
}
