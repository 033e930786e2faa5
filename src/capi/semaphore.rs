//! Semaphores.

use std::ptr::null_mut;
use std::sync::Arc;

use super::{bop_status_t, call, counted, counted_delete, counted_new};
use crate::runtime::sync::semaphore::Semaphore;

/// A number of permits, which fibers of any store and runtime, and plain threads, take and give back. Who has waited
/// longest is served first. Handles are counted: each is deleted once.
pub struct bop_semaphore_t {
    _opaque: [u8; 0],
}

/// Makes a semaphore with so many permits.
///
/// Returns: the semaphore.
/// Ownership: the handle is the caller's, until `bop_semaphore_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_semaphore_new(permits: u64) -> *mut bop_semaphore_t {
    call(null_mut(), || counted_new(Arc::new(Semaphore::new(permits))))
}

/// Takes a permit; waits while there is none.
///
/// Returns: `BOP_OK`; else no permit was taken: `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`;
/// `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `semaphore` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_acquire(semaphore: *mut bop_semaphore_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Semaphore>> = unsafe { counted(semaphore) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.acquire(None).into())
    })
}

/// As `bop_semaphore_acquire`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
///
/// Returns: as `bop_semaphore_acquire`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `semaphore` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_acquire_until(
    semaphore: *mut bop_semaphore_t,
    deadline: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Semaphore>> = unsafe { counted(semaphore) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.acquire(Some(deadline)).into())
    })
}

/// Adds permits, which go to those who have waited longest. Whoever does so need not have taken any.
///
/// Returns: `BOP_OK`; `BOP_INVALID`, also if there would be 2^64 permits.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `semaphore` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_release(
    semaphore: *mut bop_semaphore_t,
    permits: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Semaphore>> = unsafe { counted(semaphore) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.release(permits).into())
    })
}

/// How many permits a semaphore has.
///
/// Returns: the number at the moment; 0 for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `semaphore` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_permits(semaphore: *const bop_semaphore_t) -> u64 {
    // SAFETY: per contract.
    call(0, || unsafe { counted(semaphore) }.map_or(0, |it: Arc<Semaphore>| it.permits()))
}


/// A second handle on a semaphore.
///
/// Returns: the handle; NULL for NULL.
/// Ownership: the caller's, until `bop_semaphore_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `semaphore` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_clone(semaphore: *const bop_semaphore_t) -> *mut bop_semaphore_t {
    // SAFETY: per contract.
    call(null_mut(), || unsafe { counted(semaphore) }.map_or(null_mut(), |it: Arc<Semaphore>| counted_new(it)))
}

/// Lets go of a handle. The semaphore goes with the last one; who waits in a call keeps it. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `semaphore` is NULL or the caller's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_semaphore_delete(semaphore: *mut bop_semaphore_t) {
    // SAFETY: per contract.
    call((), || unsafe { counted_delete::<Semaphore, _>(semaphore) });
}
