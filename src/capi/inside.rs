//! What a fiber calls. Most of it also works on a plain thread.

use std::sync::Arc;

use super::{bop_fiber_t, bop_status_t, call};
use crate::runtime::wait;
use crate::sys::clock;
use crate::wasm::fiber::current;

/// Gives up the turn. Others that are ready run first.
///
/// Returns: `BOP_OK` (also on a plain thread, where it does nothing); `BOP_CANCELLED`;
/// `BOP_STORE_HAS_GC`.
/// Context: any thread or fiber.
/// Switches: suspends the calling fiber.
#[unsafe(no_mangle)]
pub extern "C" fn bop_yield() -> bop_status_t {
    // Not in `call`: nothing here can panic, and each frame between a fiber and its switch costs a
    // return that the processor predicts wrongly.
    wait::yield_now().into()
}

/// Sleeps for so many nanoseconds.
///
/// Returns: `BOP_OK`, never early; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`.
/// Context: any thread or fiber.
/// Switches: suspends the calling fiber; blocks a plain thread.
#[unsafe(no_mangle)]
pub extern "C" fn bop_sleep(nanoseconds: u64) -> bop_status_t {
    let sleep = || wait::sleep_until(clock::now().saturating_add(nanoseconds)).into();
    call(bop_status_t::BOP_INVALID, sleep)
}

/// Sleeps until `deadline` (see `bop_now`).
///
/// Returns: as `bop_sleep`.
/// Context: any thread or fiber.
/// Switches: suspends the calling fiber; blocks a plain thread.
#[unsafe(no_mangle)]
pub extern "C" fn bop_sleep_until(deadline: u64) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || wait::sleep_until(deadline).into())
}

/// Waits for the permit that `bop_unpark` gives, and consumes it. Returns at once if it is
/// there.
///
/// Returns: `BOP_OK`, never without a permit; `BOP_CANCELLED`; `BOP_NOT_FIBER`; `BOP_STORE_HAS_GC`.
/// Context: fibers only.
/// Switches: may suspend the calling fiber.
#[unsafe(no_mangle)]
pub extern "C" fn bop_park() -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || wait::park_until(None).into())
}

/// As `bop_park`, but waits no longer than until `deadline` (see `bop_now`).
///
/// Returns: as `bop_park`, and `BOP_TIMEOUT`. A permit that is there is `BOP_OK` whatever the
/// deadline.
/// Context: fibers only.
/// Switches: may suspend the calling fiber.
#[unsafe(no_mangle)]
pub extern "C" fn bop_park_until(deadline: u64) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || wait::park_until(Some(deadline)).into())
}

/// The calling fiber.
///
/// Returns: a new handle; NULL if no fiber calls.
/// Ownership: the caller's, until `bop_fiber_detach`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_current() -> *mut bop_fiber_t {
    call(std::ptr::null_mut(), || {
        current().map_or(std::ptr::null_mut(), |fiber| {
            // SAFETY: every fiber is in an `Arc`, and one that runs is alive.
            bop_fiber_t::new(unsafe {
                Arc::increment_strong_count(fiber);
                Arc::from_raw(fiber)
            })
        })
    })
}

/// Was the calling fiber cancelled? For long computations of the host, which nobody preempts.
///
/// Returns: whether it was; false on a plain thread.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_cancelled() -> bool {
    call(false, || current().is_some_and(|fiber| fiber.cancelled()))
}

/// The clock of all deadlines: `CLOCK_MONOTONIC`.
///
/// Returns: the time in nanoseconds.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_now() -> u64 {
    call(0, clock::now)
}
