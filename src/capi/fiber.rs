//! Handles on fibers.

use std::ffi::c_char;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::PoisonError;

use wasmtime_c_api::{wasm_trap_t, wasmtime_error_t, wasmtime_val_clone, wasmtime_val_t};

use super::{bop_outcome_t, bop_state_t, bop_status_t, call, fallible};
use crate::fiber::state::{Signal, Signalled};
use crate::runtime::wait;
use crate::wasm::end::Outcome;
use crate::wasm::fiber::Fiber;

/// A handle on a fiber. Any thread may use it, also when the fiber has ended or its runtime was
/// deleted. Handles are counted: each is detached once.
pub struct bop_fiber_t {
    _opaque: [u8; 0],
}

impl bop_fiber_t {
    pub(super) fn new(fiber: Arc<Fiber>) -> *mut bop_fiber_t {
        Arc::into_raw(fiber).cast_mut().cast()
    }

    /// The fiber behind a handle.
    ///
    /// # Safety
    ///
    /// NULL, or a live handle.
    pub(super) unsafe fn get(handle: *const bop_fiber_t) -> Option<ManuallyDrop<Arc<Fiber>>> {
        // SAFETY: a handle is what `new` gave; the reference stays the handle's.
        (!handle.is_null()).then(|| ManuallyDrop::new(unsafe { Arc::from_raw(handle.cast()) }))
    }
}

/// Waits for the end of a fiber. Any number may wait for the same one, and one may ask again.
///
/// Returns: `BOP_OK` and the outcome in `*outcome` (which may be NULL). Else `*outcome` is left
/// alone: `BOP_CANCELLED` if the calling fiber was cancelled; `BOP_NOT_ALLOWED` for a fiber that joins
/// itself or, unless it has ended, a fiber of another runtime; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `fiber` is NULL or a live handle; `outcome` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_join(
    fiber: *mut bop_fiber_t,
    outcome: *mut bop_outcome_t,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { join(fiber, None, outcome) })
}

/// As `bop_fiber_join`, but waits no longer than until `deadline` (see `bop_now`).
///
/// Returns: as `bop_fiber_join`, and `BOP_TIMEOUT`. A fiber that has ended is `BOP_OK` whatever the
/// deadline.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// As for `bop_fiber_join`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_join_until(
    fiber: *mut bop_fiber_t,
    deadline: u64,
    outcome: *mut bop_outcome_t,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { join(fiber, Some(deadline), outcome) })
}

unsafe fn join(
    fiber: *mut bop_fiber_t,
    deadline: Option<u64>,
    outcome: *mut bop_outcome_t,
) -> bop_status_t {
    // SAFETY: the contract of the callers.
    let Some(fiber) = (unsafe { bop_fiber_t::get(fiber) }) else {
        return bop_status_t::BOP_INVALID;
    };
    let status = wait::join_until(&fiber, deadline);
    // SAFETY: as above.
    if let (wait::Status::Ok, Some(end), Some(out)) = (status, fiber.end(), unsafe { outcome.as_mut() }) {
        *out = end.outcome.into();
    }
    status.into()
}

/// Copies the results of a fiber that returned: as many as its function has. May be called again.
///
/// Returns: NULL, or an error: not ended, ended otherwise, another number of results.
/// Ownership: the values are the caller's (`wasmtime_val_unroot`, for references).
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle; `results` has room for `nresults` values, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_results(
    fiber: *const bop_fiber_t,
    results: *mut wasmtime_val_t,
    nresults: usize,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let fiber = unsafe { bop_fiber_t::get(fiber) }.ok_or("fiber is NULL")?;
        let end = fiber.end().ok_or("the fiber has not ended yet")?;
        match end.outcome {
            Outcome::Returned => {}
            Outcome::Trapped => return Err("the fiber trapped: there are no results".into()),
            Outcome::Cancelled => return Err("the fiber was cancelled: there are no results".into()),
            Outcome::TimedOut => return Err("the fiber timed out: there are no results".into()),
            Outcome::OutOfBudget => return Err("the fiber ran out of budget: there are no results".into()),
            Outcome::Exited => return Err("the guest exited: there are no results".into()),
            Outcome::Failed => return Err("the fiber failed: there are no results".into()),
        }
        let wanted = end.results.len();
        if wanted != nresults {
            return Err(format!("the function has {wanted} results, not {nresults}"));
        }
        if results.is_null() && wanted > 0 {
            return Err("results is NULL".into());
        }
        for (i, value) in end.results.iter().enumerate() {
            // SAFETY: per contract; a value that Wasmtime made is of a kind that it can copy.
            unsafe { wasmtime_val_clone(value, &mut *results.add(i).cast()) };
        }
        Ok(())
    })
}

/// The code that the guest passed to WASI's `proc_exit`.
///
/// Returns: the code if the outcome is `BOP_OUTCOME_EXITED`, else 0.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_exit_code(fiber: *const bop_fiber_t) -> i32 {
    call(0, || {
        // SAFETY: per contract.
        let fiber = unsafe { bop_fiber_t::get(fiber) };
        fiber.and_then(|fiber| fiber.end().map(|end| end.exit_code)).unwrap_or(0)
    })
}

/// Takes the trap that ended a fiber: its message, its code, its backtrace. Of several takers the
/// first gets it.
///
/// Returns: the trap, or NULL if there is none (any more, or yet).
/// Ownership: the caller's (`wasm_trap_delete`).
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_take_trap(fiber: *mut bop_fiber_t) -> *mut wasm_trap_t {
    call(std::ptr::null_mut(), || {
        // SAFETY: per contract.
        let fiber = unsafe { bop_fiber_t::get(fiber) };
        let end = fiber.as_ref().and_then(|fiber| fiber.end());
        let trap = end.and_then(|end| end.trap.lock().unwrap_or_else(PoisonError::into_inner).take());
        trap.map_or(std::ptr::null_mut(), Box::into_raw)
    })
}

/// Cancels a fiber, for good. If it waits, its call returns `BOP_CANCELLED`, and so does each further
/// one; if it runs Wasm, that traps at its next epoch check; if it has not begun, it ends without
/// running. A host function must return by itself.
///
/// Returns: `BOP_OK`, `BOP_FINISHED`, `BOP_INVALID`.
/// Context: any thread or fiber; a fiber may cancel itself.
/// Switches: never. It does not wait for the end.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_cancel(fiber: *mut bop_fiber_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        match unsafe { bop_fiber_t::get(fiber) } {
            None => bop_status_t::BOP_INVALID,
            Some(fiber) if fiber.cancel() => bop_status_t::BOP_OK,
            Some(_) => bop_status_t::BOP_FINISHED,
        }
    })
}

/// Gives a fiber the permit that `bop_park` consumes. If it is parked it wakes; else its next
/// `bop_park` returns at once. A fiber has one permit at the most.
///
/// Returns: `BOP_OK`, `BOP_FINISHED`, `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_unpark(fiber: *mut bop_fiber_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        match unsafe { bop_fiber_t::get(fiber) } {
            None => bop_status_t::BOP_INVALID,
            Some(fiber) if fiber.signal(Signal::Permit) == Signalled::Finished => {
                bop_status_t::BOP_FINISHED
            }
            Some(_) => bop_status_t::BOP_OK,
        }
    })
}

/// What a fiber is doing; true only for the moment, except that a fiber that has finished stays so.
///
/// Returns: the state; `BOP_STATE_FINISHED` for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_state(fiber: *const bop_fiber_t) -> bop_state_t {
    call(bop_state_t::BOP_STATE_FINISHED, || {
        // SAFETY: per contract.
        match unsafe { bop_fiber_t::get(fiber) } {
            None => bop_state_t::BOP_STATE_FINISHED,
            Some(fiber) if fiber.word.finished() => bop_state_t::BOP_STATE_FINISHED,
            Some(fiber) if fiber.word.parked() => bop_state_t::BOP_STATE_PARKED,
            Some(fiber) if fiber.strand.is_running(&fiber) => bop_state_t::BOP_STATE_RUNNING,
            Some(_) => bop_state_t::BOP_STATE_READY,
        }
    })
}

/// How long the fiber has run on a processor, in nanoseconds, if it has a budget (`bop_spawn_options_cpu_budget`).
///
/// Returns: the time up to now, also while it runs; 0 without a budget, and for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_cpu(fiber: *const bop_fiber_t) -> u64 {
    call(0, || {
        // SAFETY: per contract.
        let fiber = unsafe { bop_fiber_t::get(fiber) };
        fiber.and_then(|fiber| Some(fiber.meter.as_ref()?.used())).unwrap_or(0)
    })
}

/// A number that no other fiber of the runtime has had.
///
/// Returns: the number; 0 for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_id(fiber: *const bop_fiber_t) -> u64 {
    // SAFETY: per contract.
    call(0, || unsafe { bop_fiber_t::get(fiber) }.map_or(0, |fiber| fiber.id))
}

/// Copies a fiber's name into `buffer`, of `size` bytes, with a 0 at the end; what does not fit is cut.
///
/// Returns: the length of the whole name in bytes, without the 0; 0 for no name or NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle; `buffer` is NULL or has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_name(
    fiber: *const bop_fiber_t,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    call(0, || {
        // SAFETY: per contract.
        let Some(fiber) = (unsafe { bop_fiber_t::get(fiber) }) else { return 0 };
        let name = fiber.name.as_bytes();
        if !buffer.is_null() && size > 0 {
            let len = name.len().min(size - 1);
            // SAFETY: per contract; `len` is less than `size`.
            unsafe {
                std::ptr::copy_nonoverlapping(name.as_ptr(), buffer.cast(), len);
                *buffer.add(len) = 0;
            }
        }
        name.len()
    })
}

/// A second handle on a fiber.
///
/// Returns: the handle; NULL for NULL.
/// Ownership: the caller's, until `bop_fiber_detach`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_clone(fiber: *const bop_fiber_t) -> *mut bop_fiber_t {
    call(std::ptr::null_mut(), || {
        // SAFETY: per contract.
        let fiber = unsafe { bop_fiber_t::get(fiber) };
        fiber.map_or(std::ptr::null_mut(), |fiber| bop_fiber_t::new(Arc::clone(&fiber)))
    })
}

/// Lets go of a handle. The fiber goes on. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or the caller's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_detach(fiber: *mut bop_fiber_t) {
    call((), || {
        // SAFETY: per contract; the handle's reference is dropped with it.
        drop(unsafe { bop_fiber_t::get(fiber) }.map(ManuallyDrop::into_inner));
    });
}
