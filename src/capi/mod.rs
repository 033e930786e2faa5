//! The exported functions: C types, casts, pointer checks, and no logic.
//!
//! Two things hold for every function of these files. Its body runs in [`call`] or [`fallible`], so no
//! panic leaves it. And it looks at each pointer before it follows it: `NULL` is an error in words
//! where errors have words, and harmless where they have none.

#![allow(non_camel_case_types)] // the names are C's

mod channel;
mod config;
mod fd;
mod fiber;
mod guest;
mod hooks;
mod inside;
mod module;
mod mutex;
mod names;
mod runtime;
mod semaphore;
mod share;
mod spawn;
mod stats;
mod store;
mod wait_group;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;

use wasmtime_c_api::wasmtime_error_t;

pub use channel::*;
pub use config::*;
pub use fd::*;
pub use fiber::*;
pub use guest::*;
pub use hooks::*;
pub use inside::*;
pub use module::*;
pub use mutex::*;
pub use names::*;
pub use runtime::*;
pub use semaphore::*;
pub use share::*;
pub use spawn::*;
pub use stats::*;
pub use store::*;
pub use wait_group::*;

use crate::wasm::bridge;

/// For programs in Rust that test this library; not part of its C API, and no promise.
#[doc(hidden)]
pub mod preempt {
    pub use crate::wasm::preempt::install;
}

/// The engine of a runtime, for the same programs.
///
/// # Safety
///
/// `runtime` is live.
#[doc(hidden)]
pub unsafe fn engine_of(runtime: *const bop_runtime_t) -> wasmtime::Engine {
    // SAFETY: per contract.
    unsafe { &*runtime }.0.shared.engine.clone()
}

/// Runs the body of an exported function that has no error to return; `broken` is what it returns
/// if there is a bug.
fn call<T>(broken: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(broken)
}

/// Runs the body of an exported function that returns an error.
fn fallible(body: impl FnOnce() -> Result<(), String>) -> *mut wasmtime_error_t {
    let result = catch_unwind(AssertUnwindSafe(body));
    let result = result.unwrap_or_else(|_| Err("a bug in BOP: it panicked".into()));
    result.map_or_else(|message| Box::into_raw(bridge::error(message)), |()| null_mut())
}

/// What a pointer of C's points to.
///
/// # Safety
///
/// It is NULL, or valid for `'a`.
unsafe fn get<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, String> {
    // SAFETY: per contract.
    unsafe { pointer.as_ref() }.ok_or_else(|| format!("{what} is NULL"))
}

/// The same, to write to.
///
/// # Safety
///
/// As for `get`, and nobody else uses it.
unsafe fn get_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, String> {
    // SAFETY: per contract.
    unsafe { pointer.as_mut() }.ok_or_else(|| format!("{what} is NULL"))
}

/// A box of C's.
///
/// # Safety
///
/// It is NULL, or came out of `Box::into_raw` and is the caller's to give.
unsafe fn take<T>(pointer: *mut T) -> Option<Box<T>> {
    // SAFETY: per contract.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
}

/// A handle that is a counted reference.
fn counted_new<T, H>(object: Arc<T>) -> *mut H {
    Arc::into_raw(object).cast_mut().cast()
}

/// One more reference to what is behind such a handle: it stays while a call waits, whoever deletes the handle.
///
/// # Safety
///
/// NULL, or a live handle on a `T`.
unsafe fn counted<T, H>(handle: *const H) -> Option<Arc<T>> {
    // SAFETY: per contract; the handle's own reference stays the handle's.
    (!handle.is_null()).then(|| unsafe {
        Arc::increment_strong_count(handle.cast::<T>());
        Arc::from_raw(handle.cast())
    })
}

/// Drops the reference of such a handle.
///
/// # Safety
///
/// NULL, or a handle on a `T` that is used no more.
unsafe fn counted_delete<T, H>(handle: *mut H) {
    if !handle.is_null() {
        // SAFETY: per contract.
        drop(unsafe { Arc::<T>::from_raw(handle.cast()) });
    }
}

/// An array of C's; NULL is fine if it has no elements.
///
/// # Safety
///
/// It is NULL, or valid for `'a` and `len` elements.
unsafe fn slice<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T], String> {
    match (pointer.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(format!("{what} is NULL")),
        // SAFETY: per contract.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(pointer, len) }),
    }
}

/// A string of C's, `len` bytes of UTF-8; what is no UTF-8 becomes a replacement character. `None` for
/// NULL.
///
/// # Safety
///
/// It is NULL, or valid for `len` bytes.
unsafe fn text(pointer: *const c_char, len: usize) -> Option<String> {
    // SAFETY: per contract.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, "text") };
    bytes.ok().filter(|_| !pointer.is_null()).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Copies the first fields of `from` into a structure of C's, as many as its `size` field says that
/// it has: programs built with an older header have fewer.
///
/// # Safety
///
/// `T` is `repr(C)`, has no padding, and starts with its size; `to` points to as many bytes as that
/// says.
unsafe fn copy_sized<T>(to: *mut T, from: &T) {
    let at = size_of::<usize>();
    // SAFETY: per contract.
    unsafe {
        let size = (*to.cast::<usize>()).min(size_of::<T>());
        if size > at {
            let (to, from) = (to.cast::<u8>().add(at), (&raw const *from).cast::<u8>().add(at));
            std::ptr::copy_nonoverlapping(from, to, size - at);
        }
    }
}
