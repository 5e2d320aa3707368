//! Descriptors that a task waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has the runtime tell when `descriptor`, which does not block, is ready.
///
/// # Errors
/// When the system refuses.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "tokio cannot see that a descriptor stays the same and open"
    )]
    // SAFETY: an `OwnedFd` is one open descriptor from when it is made until it is dropped; the `AsyncFd` owns it, and
    // gives only shared references of it away here.
    let registered = unsafe { AsyncFd::register(descriptor) };
    Ok(registered?)
}
