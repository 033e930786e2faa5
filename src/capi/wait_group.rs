//! Wait groups.

use std::ptr::null_mut;
use std::sync::Arc;

use super::{bop_status_t, call, counted, counted_delete, counted_new};
use crate::runtime::sync::wait_group::WaitGroup;

/// A number of things that are to be done, by fibers of any store and runtime or plain threads, and those who wait
/// until none is left. Handles are counted: each is deleted once.
pub struct bop_wait_group_t {
    _opaque: [u8; 0],
}

/// Makes a wait group with nothing to be done.
///
/// Returns: the wait group.
/// Ownership: the handle is the caller's, until `bop_wait_group_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_wait_group_new() -> *mut bop_wait_group_t {
    call(null_mut(), || counted_new(Arc::new(WaitGroup::default())))
}

/// So many more things are to be done.
///
/// Returns: `BOP_OK`; `BOP_INVALID`, also if there would be 2^64 of them.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_add(
    group: *mut bop_wait_group_t,
    more: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<WaitGroup>> = unsafe { counted(group) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.add(more).into())
    })
}

/// One thing is done. With the last one, all who wait go on.
///
/// Returns: `BOP_OK`; `BOP_INVALID`, also if nothing was left to be done.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_done(group: *mut bop_wait_group_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<WaitGroup>> = unsafe { counted(group) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.done().into())
    })
}

/// Waits until nothing is left to be done, if only for a moment.
///
/// Returns: `BOP_OK`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_wait(group: *mut bop_wait_group_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<WaitGroup>> = unsafe { counted(group) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.wait(None).into())
    })
}

/// As `bop_wait_group_wait`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
///
/// Returns: as `bop_wait_group_wait`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_wait_until(
    group: *mut bop_wait_group_t,
    deadline: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let it: Option<Arc<WaitGroup>> = unsafe { counted(group) };
        it.map_or(bop_status_t::BOP_INVALID, |it| it.wait(Some(deadline)).into())
    })
}

/// How many things are left to be done.
///
/// Returns: the number at the moment; 0 for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_left(group: *const bop_wait_group_t) -> u64 {
    // SAFETY: per contract.
    call(0, || unsafe { counted(group) }.map_or(0, |it: Arc<WaitGroup>| it.left()))
}


/// A second handle on a wait group.
///
/// Returns: the handle; NULL for NULL.
/// Ownership: the caller's, until `bop_wait_group_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `group` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_clone(group: *const bop_wait_group_t) -> *mut bop_wait_group_t {
    // SAFETY: per contract.
    call(null_mut(), || unsafe { counted(group) }.map_or(null_mut(), |it: Arc<WaitGroup>| counted_new(it)))
}

/// Lets go of a handle. The wait group goes with the last one; who waits in a call keeps it. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `group` is NULL or the caller's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_wait_group_delete(group: *mut bop_wait_group_t) {
    // SAFETY: per contract.
    call((), || unsafe { counted_delete::<WaitGroup, _>(group) });
}
