//! Mutexes.

use std::ptr::null_mut;
use std::sync::Arc;

use super::{bop_status_t, call, counted, counted_delete, counted_new};
use crate::runtime::sync::mutex::Mutex;

/// A lock that fibers of any store and runtime, and plain threads, take turns to hold. Who has waited longest is next. A
/// fiber may wait for anything else while it holds one. A fiber that ends with it abandons it to the next; a
/// thread that does so leaves it locked, and the kernel may give its number, by which it holds it, to another thread. Handles are counted: each is deleted once.
pub struct bop_mutex_t {
    _opaque: [u8; 0],
}

/// Makes a mutex that nobody holds.
///
/// Returns: the mutex.
/// Ownership: the handle is the caller's, until `bop_mutex_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_mutex_new() -> *mut bop_mutex_t {
    call(null_mut(), || counted_new(Arc::new(Mutex::default())))
}

/// Locks a mutex; waits while another fiber or thread holds it.
///
/// Returns: `BOP_OK`: it is the caller's; `BOP_ABANDONED`: so it is, but the fiber that had it before has ended without
/// unlocking it. Else it is not: `BOP_CANCELLED`; `BOP_NOT_ALLOWED`, also if the caller holds it; `BOP_STORE_HAS_GC`;
/// `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `mutex` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_mutex_lock(mutex: *mut bop_mutex_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Mutex>> = unsafe { counted(mutex) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.lock(None).into())
    })
}

/// As `bop_mutex_lock`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
///
/// Returns: as `bop_mutex_lock`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `mutex` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_mutex_lock_until(
    mutex: *mut bop_mutex_t,
    deadline: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Mutex>> = unsafe { counted(mutex) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.lock(Some(deadline)).into())
    })
}

/// Unlocks a mutex, which goes to who has waited longest.
///
/// Returns: `BOP_OK`; `BOP_NOT_ALLOWED` if the caller does not hold it; `BOP_INVALID`.
/// Context: the fiber or thread that holds it.
/// Switches: never.
///
/// # Safety
///
/// `mutex` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_mutex_unlock(mutex: *mut bop_mutex_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<Mutex>> = unsafe { counted(mutex) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.unlock().into())
    })
}


/// A second handle on a mutex.
///
/// Returns: the handle; NULL for NULL.
/// Ownership: the caller's, until `bop_mutex_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `mutex` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_mutex_clone(mutex: *const bop_mutex_t) -> *mut bop_mutex_t {
    // SAFETY: per contract.
    call(null_mut(), || unsafe { counted(mutex) }.map_or(null_mut(), |it: Arc<Mutex>| counted_new(it)))
}

/// Lets go of a handle. The mutex goes with the last one; who waits in a call keeps it. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `mutex` is NULL or the caller's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_mutex_delete(mutex: *mut bop_mutex_t) {
    // SAFETY: per contract.
    call((), || unsafe { counted_delete::<Mutex, _>(mutex) });
}
