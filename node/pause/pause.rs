//! The first process of every pod of Linux containers: it holds the pod's namespaces open, and does nothing else.
//!
//! 1. It blocks SIGINT, SIGTERM and SIGCHLD, and waits for one of them. As process 1 of a namespace it would not get
//!    signals that it neither handles nor blocks.
//! 2. SIGCHLD: with `shareProcessNamespace` it is the parent of every orphan of the pod, and reaps them.
//! 3. SIGINT or SIGTERM: it ends, with code 0.
//!
//! A program of its own, compiled by `build.rs` for the host without libc and without the standard library, so that it
//! is static and a few kilobytes small. It makes four system calls; their numbers are in one table per architecture.
//!
//! Source: sigprocmask(2), sigwaitinfo(2), wait4(2), and the kernel's table of system calls.

#![no_std]
#![no_main]

use core::arch::asm;

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

/// Numbers of system calls.
#[cfg(target_arch = "aarch64")]
mod number {
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
}

const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;

/// `how` of sigprocmask: add to what is blocked.
const SIG_BLOCK: usize = 0;
/// Option of wait4: do not wait.
const WNOHANG: usize = 1;
/// Any child.
const ANY: usize = usize::MAX;
/// Bytes of the kernel's set of signals.
const SET_SIZE: usize = 8;

/// A system call with four arguments.
///
/// # Safety
/// The arguments are what the call of that number expects; pointers among them are valid for it.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the caller keeps the call's promises. The kernel changes rax, rcx and r11, which are named, and memory
    // that the arguments point at.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call with four arguments.
///
/// # Safety
/// The arguments are what the call of that number expects; pointers among them are valid for it.
#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: usize, arguments: [usize; 4]) -> isize {
    let result;
    // SAFETY: the caller keeps the call's promises. The kernel changes x0, which is named, and memory that the
    // arguments point at.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            options(nostack),
        );
    }
    result
}

const fn bit(signal: isize) -> u64 {
    1 << (signal - 1)
}

/// Where the kernel begins.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let wanted = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    let set = (&raw const wanted).expose_provenance();
    // SAFETY: `set` points at a live set of signals of the size that is given; the old one is not asked for.
    unsafe { system_call(number::RT_SIGPROCMASK, [SIG_BLOCK, set, 0, SET_SIZE]) };
    loop {
        // SAFETY: as above; neither the signal's details nor a limit of time are given.
        let signal = unsafe { system_call(number::RT_SIGTIMEDWAIT, [set, 0, 0, SET_SIZE]) };
        match signal {
            SIGCHLD => reap(),
            SIGINT | SIGTERM => exit(0),
            // Interrupted by a stop and its end, for example.
            _ => {}
        }
    }
}

/// Takes the exit status of every child that has ended.
fn reap() {
    // SAFETY: neither status nor usage are asked for, so that nothing is written.
    while unsafe { system_call(number::WAIT4, [ANY, 0, WNOHANG, 0]) } > 0 {}
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: ends the process; no pointers.
        unsafe { system_call(number::EXIT_GROUP, [code, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}
