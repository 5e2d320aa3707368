//! What root gave this process and it does not need.
//!
//! A server or an agent started by root keeps the right to listen on ports below 1024 and gives up every other
//! capability, for itself and for whatever it starts. Its files are root's own, so it goes on reading and writing them;
//! files of others it reaches only as far as their permissions let it.
//!
//! A node that runs containers of Linux keeps what it has: it mounts, starts containerd, and passes on to containers what
//! their pods ask for (`--linux-containers off` does without).
//!
//! Capabilities belong to a thread, so this has to happen before there is a second one.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Gives up what is not needed. Without effect for a process that has nothing to give up.
///
/// # Errors
/// What the system says.
pub(crate) fn drop_unneeded() -> Result<(), Errno> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    if held.permitted.is_empty() {
        return Ok(());
    }
    // Only whoever may change the bounding set can; for others it bounds nothing that they could get.
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            if capability == KEPT {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let kept = held.permitted & KEPT;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}
