//! What guests import.

use wasmtime_c_api::{wasmtime_error_t, wasmtime_linker_t};

use super::{fallible, get_mut};
use crate::runtime::guest;
use crate::wasm::bridge;

/// Defines the module `bop` in a linker: what `bop_guest.h` declares, with which a guest spawns fibers of
/// its own instance, waits, and passes values through channels. The instance must be shared
/// (`bop_store_share`), or be alone in its store and prepared (`bop_module_prepare`), or keep no stack in
/// its memory.
///
/// Returns: NULL, or an error: one of the names is defined already, a NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `linker` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_linker_define(linker: *mut wasmtime_linker_t) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let linker = bridge::linker(unsafe { get_mut(linker, "linker")? });
        guest::define(linker).map_err(|e| format!("{e:#}"))
    })
}
