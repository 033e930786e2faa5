//! The builder of runtimes.

use wasmtime_c_api::wasm_config_t;

use super::{bop_guard_number, call, take};
use crate::runtime::{Config, GuardChoice};
use crate::sys::memory::Guard;
use crate::wasm::bridge;

/// Options of a runtime. `bop_runtime_new` takes it. Not to be used by two threads at once.
pub struct bop_config_t(pub(super) Config);

/// Sets an option, unless there is nothing to set it in.
fn set(config: *mut bop_config_t, option: impl FnOnce(&mut Config)) {
    call((), || {
        // SAFETY: NULL, or a builder that the caller owns.
        if let Some(config) = unsafe { config.as_mut() } {
            option(&mut config.0);
        }
    });
}

/// Options with their defaults.
///
/// Returns: the options.
/// Ownership: the caller's, until `bop_runtime_new` or `bop_config_delete` takes them.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_config_new() -> *mut bop_config_t {
    call(std::ptr::null_mut(), || Box::into_raw(Box::new(bop_config_t(Config::default()))))
}

/// Deletes options that no runtime was made from. NULL is fine.
///
/// Ownership: takes `config`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_delete(config: *mut bop_config_t) {
    // SAFETY: per contract.
    call((), || drop(unsafe { take(config) }));
}

/// Wasmtime's own options of the engine. NULL means its defaults, which is also the default here.
/// Whatever they say, epoch interruption is on. Wasm in a store that BOP looks after has its fiber's
/// stack, whatever `max_wasm_stack` says; in any other store that a fiber uses it has `max_wasm_stack`
/// from where it is entered, and the fiber's stack must be as large.
///
/// Ownership: takes `wasm`, in any case.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live; `wasm` is NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_wasm(config: *mut bop_config_t, wasm: *mut wasm_config_t) {
    // SAFETY: per contract.
    let wasm = unsafe { take(wasm) };
    set(config, |config| config.wasm = wasm.map(bridge::config));
}

/// How many OS threads run fibers after `bop_runtime_start`. Default: one for each CPU that the
/// process may use. At least 1, at most 1024.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_workers(config: *mut bop_config_t, workers: usize) {
    set(config, |config| config.workers = workers);
}

/// The time slice after which a guest is preempted if others wait, in nanoseconds. Default 1,000,000
/// (1 ms), at least 50,000 (50 µs). 0 makes guests switch at *every* epoch check, whoever waits:
/// slow, and good for finding bugs.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_quantum(config: *mut bop_config_t, nanoseconds: u64) {
    set(config, |config| config.quantum = nanoseconds);
}

/// The size of a fiber's stack, in bytes, unless the spawn says otherwise. Default 1 MiB; at least
/// 16 KiB more than `bop_config_host_stack`. It costs address space; memory only as far as it is used.
/// Rounded up to a power of two.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_stack_size(config: *mut bop_config_t, bytes: usize) {
    set(config, |config| config.stack_size = bytes);
}

/// The part of each stack that Wasm must leave to the host functions it calls, in bytes. Default
/// 64 KiB. Wasm that would go further traps; a host function that goes further than this on top of
/// such Wasm runs into the guard, which is reported with the fiber's name, and aborts the process.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_host_stack(config: *mut bop_config_t, bytes: usize) {
    set(config, |config| config.host_stack = bytes);
}

/// How many fibers may live at a time; a spawn that would make more fails, or waits (`bop_spawn_options_wait`). Default: no
/// limit.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_max_fibers(config: *mut bop_config_t, fibers: usize) {
    set(config, |config| config.max_fibers = fibers);
}

/// How long `bop_runtime_delete` waits for the fibers that it has cancelled, in nanoseconds.
/// Default 5 s.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_shutdown_timeout(config: *mut bop_config_t, nanoseconds: u64) {
    set(config, |config| config.shutdown_timeout = nanoseconds);
}

/// How the guards below stacks are made. Default `BOP_GUARD_AUTO`. `bop_runtime_new` refuses a number
/// that is no `bop_guard_t`.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_guard(config: *mut bop_config_t, guard: bop_guard_number) {
    set(config, |config| {
        config.guard = match guard {
            0 => GuardChoice::Best,
            1 => GuardChoice::This(Guard::Install),
            2 => GuardChoice::This(Guard::Mprotect),
            other => GuardChoice::Unknown(other),
        };
    });
}

/// Whether to note when each fiber is spawned, first run and ended, for `bop_fiber_times`. Default
/// false: it costs three looks at the clock for each fiber.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_timing(config: *mut bop_config_t, timing: bool) {
    set(config, |config| config.timing = timing);
}

/// How many threads may make calls of `bop_blocking` at a time. Default 512, at least 1. One that has had nothing to do for
/// a second ends.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_config_helpers(config: *mut bop_config_t, threads: usize) {
    set(config, |config| config.helpers = threads);
}
