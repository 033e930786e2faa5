//! What guests import.

use wasmtime_c_api::{wasmtime_error_t, wasmtime_linker_t};

use super::{fallible, get_mut};
use crate::runtime::{guest, wasi};
use crate::wasm::bridge;

/// Defines the module `bop` in a linker: what `bop_guest.h` declares, with which a guest spawns fibers of
/// its own instance, waits, and passes values through channels. An instance that exports its stack pointer
/// (`bop_module_prepare`) and was not shared (`bop_store_share`) is shared by its first spawn, with the defaults,
/// if only one fiber of the store lives then; else that spawn traps. That is the instance that calls: another one that
/// fibers enter through it must be shared by the host. Most of it needs a fiber: a start function
/// that the host's own thread runs traps there.
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

/// Defines WASI preview 1 in a linker, as `wasmtime_linker_define_wasi` does, with the same implementation; but what would
/// block the thread suspends the fiber: sleeping, `sched_yield`, `poll_oneoff`, files, and input that is not there yet. The
/// store gets its WASI by `wasmtime_context_set_wasi`, and nothing is granted that is not in there. `proc_exit` ends
/// the fiber with `BOP_OUTCOME_EXITED`.
///
/// A call that waits keeps the store's WASI: siblings that call it wait for their turn, except to sleep, to yield and to exit;
/// `wasmtime_context_set_wasi` may not be called meanwhile. What
/// is written to the process's own standard output, or to a file of `wasi_config_set_stdout_file`, is written on the worker;
/// a callback of `wasi_config_set_stdout_custom` runs on a thread of Wasmtime's, and must not call what may suspend; input from
/// a file or pipe of `wasi_config_set_stdin_file` takes such a thread for each guest that waits, of which there are 512.
/// `bop_store_stdio` needs none of them. Outside of fibers all calls block the thread, and fail while a fiber's call waits.
///
/// Returns: NULL, or an error: one of the names is defined already, a NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `linker` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_linker_define_wasi(
    linker: *mut wasmtime_linker_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let linker = bridge::linker(unsafe { get_mut(linker, "linker")? });
        wasi::define(linker).map_err(|e| format!("{e:#}"))
    })
}
