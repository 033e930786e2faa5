//! Channels.

use std::sync::Arc;

use wasmtime_c_api::wasmtime_error_t;

use super::{bop_status_t, call, counted, counted_delete, counted_new, fallible, get_mut};
use crate::runtime::sync::channel::Channel;

/// A bounded queue of 64-bit values, with any number of senders and receivers: fibers of any store and
/// runtime, and plain threads. Who has waited longest is served first. Handles are counted: each is
/// deleted once.
pub struct bop_channel_t {
    _opaque: [u8; 0],
}

/// Makes a channel that holds up to `capacity` values. With 0, a sender waits until a receiver takes its
/// value.
///
/// Returns: NULL and the channel in `*out`, or an error: no memory for so many, a NULL.
/// Ownership: the handle is the caller's, until `bop_channel_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_new(
    capacity: usize,
    out: *mut *mut bop_channel_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let out = unsafe { get_mut(out, "out")? };
        *out = counted_new(Arc::new(Channel::new(capacity)?));
        Ok(())
    })
}

unsafe fn send(channel: *mut bop_channel_t, value: u64, deadline: Option<u64>) -> bop_status_t {
    // SAFETY: the contract of the callers.
    let channel: Option<Arc<Channel>> = unsafe { counted(channel) };
    channel.map_or(bop_status_t::BOP_INVALID, |channel| channel.send(value, deadline).into())
}

/// Sends a value; waits while the channel is full.
///
/// Returns: `BOP_OK`; else the value was not sent: `BOP_CLOSED`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`;
/// `BOP_STORE_HAS_GC`; `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `channel` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_send(channel: *mut bop_channel_t, value: u64) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { send(channel, value, None) })
}

/// As `bop_channel_send`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
///
/// Returns: as `bop_channel_send`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// As for `bop_channel_send`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_send_until(
    channel: *mut bop_channel_t,
    value: u64,
    deadline: u64,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { send(channel, value, Some(deadline)) })
}

unsafe fn receive(channel: *mut bop_channel_t, value: *mut u64, deadline: Option<u64>) -> bop_status_t {
    // SAFETY: as in `send`.
    let channel: Option<Arc<Channel>> = unsafe { counted(channel) };
    let Some(channel) = channel else { return bop_status_t::BOP_INVALID };
    match channel.receive(deadline) {
        Ok(received) => {
            if !value.is_null() {
                // SAFETY: the contract of the callers.
                unsafe { value.write(received) };
            }
            bop_status_t::BOP_OK
        }
        Err(status) => status.into(),
    }
}

/// Receives the oldest value; waits while there is none.
///
/// Returns: `BOP_OK` and the value in `*value` (which may be NULL). Else `*value` is left alone:
/// `BOP_CLOSED`; `BOP_CANCELLED`; `BOP_NOT_ALLOWED`; `BOP_STORE_HAS_GC`; `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// `channel` is NULL or a live handle; `value` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_receive(
    channel: *mut bop_channel_t,
    value: *mut u64,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { receive(channel, value, None) })
}

/// As `bop_channel_receive`, but waits no longer than until `deadline` (see `bop_now`); 0 does not wait.
///
/// Returns: as `bop_channel_receive`, and `BOP_TIMEOUT`.
/// Context: any thread or fiber.
/// Switches: may suspend the calling fiber; blocks a plain thread.
///
/// # Safety
///
/// As for `bop_channel_receive`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_receive_until(
    channel: *mut bop_channel_t,
    value: *mut u64,
    deadline: u64,
) -> bop_status_t {
    // SAFETY: per contract.
    call(bop_status_t::BOP_INVALID, || unsafe { receive(channel, value, Some(deadline)) })
}

/// Closes a channel: nothing more can be sent, what is in it can be received, and all who wait are woken.
///
/// Returns: `BOP_OK`; `BOP_CLOSED` if it was closed already; `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `channel` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_close(channel: *mut bop_channel_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        match unsafe { counted::<Channel, _>(channel) } {
            None => bop_status_t::BOP_INVALID,
            Some(channel) if channel.close() => bop_status_t::BOP_OK,
            Some(_) => bop_status_t::BOP_CLOSED,
        }
    })
}

/// How many values are in a channel.
///
/// Returns: the number at the moment; 0 for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `channel` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_length(channel: *const bop_channel_t) -> usize {
    // SAFETY: per contract.
    call(0, || unsafe { counted(channel) }.map_or(0, |channel: Arc<Channel>| channel.len()))
}

/// A second handle on a channel.
///
/// Returns: the handle; NULL for NULL.
/// Ownership: the caller's, until `bop_channel_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `channel` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_clone(channel: *const bop_channel_t) -> *mut bop_channel_t {
    call(std::ptr::null_mut(), || {
        // SAFETY: per contract.
        let channel = unsafe { counted(channel) };
        channel.map_or(std::ptr::null_mut(), |channel: Arc<Channel>| counted_new(channel))
    })
}

/// Lets go of a handle. The channel goes with the last one, and with it what is in it: it is not
/// closed by that. Who waits in a call keeps it. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `channel` is NULL or the caller's handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_channel_delete(channel: *mut bop_channel_t) {
    call((), || {
        // SAFETY: per contract.
        unsafe { counted_delete::<Channel, _>(channel) };
    });
}
