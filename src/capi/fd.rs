//! Waiting for the outside world: descriptors, and calls that block.

use std::ffi::{c_int, c_void};

use super::{bop_finalizer_t, bop_host_fn_t, bop_status_t, call};
use crate::runtime::blocking::{self, Patience};
use crate::runtime::fd;
use crate::runtime::wait::Status;
use crate::sched::poller;
use crate::wasm::guest::Env;

/// What a descriptor is waited for; may be combined.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_fd_event_t {
    /// A read, or an accept, would not block. The end of the stream and errors are readable.
    BOP_READABLE = 1,
    /// A write, or a connect that is under way, would not block. Errors are writable.
    BOP_WRITABLE = 2,
}

unsafe fn wait(fd: c_int, events: u32, ready: *mut u32, deadline: Option<u64>) -> bop_status_t {
    let (status, events) = fd::wait_fd(fd, events, deadline);
    if status == Status::Ok && !ready.is_null() {
        // SAFETY: the contract of the callers.
        unsafe { ready.write(events) };
    }
    status.into()
}

/// Waits until a descriptor is ready for one of `events`, a combination of `bop_fd_event_t`: a socket, a pipe, a terminal,
/// an eventfd or the like, which should be non-blocking. Any number of fibers may wait for one descriptor. That it is
/// ready is a hint, which may be outdated: the read or write may still say `EAGAIN`.
///
/// Close such a descriptor with `bop_close`, or who waits for it may wait for ever.
///
/// Returns: `BOP_OK` and what it is ready for in `*ready` (which may be NULL). Else `*ready` is left alone: `BOP_CLOSED`
/// by `bop_close`; `BOP_FAILED`: it is not open, or of a kind that can't be waited for; `BOP_LIMIT`: the kernel allows
/// no more; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`: no or unknown events.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread, which `bop_close` does not wake.
///
/// # Safety
///
/// `ready` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_fd(fd: c_int, events: u32, ready: *mut u32) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { wait(fd, events, ready, None) })
}

/// As `bop_wait_fd`, but waits no longer than until `deadline` (see `bop_now`); 0 only looks.
///
/// Returns: as `bop_wait_fd`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread, which `bop_close` does not wake.
///
/// # Safety
///
/// As for `bop_wait_fd`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_fd_until(
    fd: c_int,
    events: u32,
    ready: *mut u32,
    deadline: u64,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { wait(fd, events, ready, Some(deadline)) })
}

/// Closes a descriptor, as `close` does. Fibers that wait for it, of whatever runtime, return `BOP_CLOSED`.
///
/// Returns: what `close` returns, with `errno`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_close(fd: c_int) -> c_int {
    let mut result = -1;
    // SAFETY: a number; the descriptor is the caller's to close.
    call((), || poller::close(fd, || result = unsafe { libc::close(fd) }));
    result
}

unsafe fn block(
    function: bop_host_fn_t,
    env: Env,
    result: *mut i64,
    patience: Patience,
) -> bop_status_t {
    let Some(function) = function else { return bop_status_t::BOP_INVALID };
    let (status, value) = blocking::blocking(function, env, patience);
    if status == Status::Ok && !result.is_null() {
        // SAFETY: the contract of the callers.
        unsafe { result.write(value) };
    }
    status.into()
}

/// Calls `function(env)` on a helper thread, so that it may block, while the fiber waits. There are as many helpers as calls
/// under way, up to `bop_config_helpers`; further calls queue up. A call that has begun is waited for, even if the
/// fiber is cancelled meanwhile; so `env` may be on its stack.
///
/// Returns: `BOP_OK` and what the function returned in `*result` (which may be NULL). Else it was not called: `BOP_CANCELLED`;
/// `BOP_LIMIT`: there is no helper, and no thread can be made; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`;
/// `BOP_INVALID`: `function` is NULL.
/// Context: any thread or fiber. A plain thread calls the function itself.
/// Switches: suspends the calling fiber.
///
/// # Safety
///
/// `function` may be called on any thread; `result` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_blocking(
    function: bop_host_fn_t,
    env: *mut c_void,
    result: *mut i64,
) -> bop_status_t {
    let env = Env { data: env, finalizer: None };
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { block(function, env, result, Patience::UntilDone) })
}

/// As `bop_blocking`, but waits no longer than until `deadline` (see `bop_now`), or until the fiber is cancelled. The
/// function then runs on, to its end, and nobody is told its result.
///
/// Returns: as `bop_blocking`; after `BOP_TIMEOUT` and `BOP_CANCELLED` the function may still run, or never have begun.
/// Ownership: `finalizer`, if there is one, is called with `env` exactly once, in any case: when the function has
/// returned, or will not be called.
/// Context: any thread or fiber. A plain thread calls the function itself, whatever the deadline.
/// Switches: suspends the calling fiber.
///
/// # Safety
///
/// `function` and `finalizer` may be called on any thread; `result` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_blocking_until(
    function: bop_host_fn_t,
    env: *mut c_void,
    finalizer: bop_finalizer_t,
    result: *mut i64,
    deadline: u64,
) -> bop_status_t {
    let env = Env { data: env, finalizer };
    let patience = Patience::Until(deadline);
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { block(function, env, result, patience) })
}
