//! The life of a runtime.

use wasmtime_c_api::{wasm_engine_t, wasmtime_error_t};

use super::{bop_config_t, call, fallible, get, get_mut, take};
use crate::runtime::{Config, Runtime};

/// One engine, its workers, its timers. Any thread may use it.
pub struct bop_runtime_t(pub(super) Runtime);

/// Makes a runtime from options; NULL means the defaults. It has no threads until
/// `bop_runtime_start` or `bop_run`.
///
/// Returns: NULL and the runtime in `*out`; or an error, and `*out` is left alone: an option that can't
/// be right, which it names, or a build of Wasmtime that BOP does not know.
/// Ownership: takes `config`, in any case. The runtime is the caller's, until `bop_runtime_delete`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `config` is NULL or the caller's; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_new(
    config: *mut bop_config_t,
    out: *mut *mut bop_runtime_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let config = unsafe { take(config) }.map_or_else(Config::default, |config| config.0);
        // SAFETY: per contract.
        let out = unsafe { get_mut(out, "out")? };
        *out = Box::into_raw(Box::new(bop_runtime_t(Runtime::new(config)?)));
        Ok(())
    })
}

/// The runtime's engine: what modules must be compiled for, and stores made with.
///
/// Returns: the engine; NULL if `runtime` is NULL.
/// Ownership: the runtime's. A `wasmtime_engine_clone` may outlive it.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_engine(runtime: *const bop_runtime_t) -> *mut wasm_engine_t {
    call(std::ptr::null_mut(), || {
        // SAFETY: per contract.
        let runtime = unsafe { runtime.as_ref() };
        let engine = runtime.map(|runtime| &raw const *runtime.0.shared.c_engine);
        engine.map_or(std::ptr::null_mut(), <*const _>::cast_mut)
    })
}

/// Starts the workers: so many background threads run fibers from now on.
///
/// Returns: NULL, or an error: started before, shut down, no thread to be had.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_start(runtime: *mut bop_runtime_t) -> *mut wasmtime_error_t {
    // SAFETY: per contract.
    fallible(|| unsafe { get(runtime, "runtime")? }.0.start())
}

/// Makes the calling thread a worker until no fiber is left. Needs no `bop_runtime_start`, and goes
/// with it; several threads may call it at once.
///
/// Of more than 16 threads in it at a time, the further ones only wait.
///
/// Returns: NULL, or an error: called from a fiber or by a thread that has entered a store, shut down, no
/// thread to be had for the clock.
/// Context: host threads only.
/// Switches: never. It blocks the thread, which runs fibers meanwhile.
///
/// # Safety
///
/// `runtime` is NULL or live, and stays so until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_run(runtime: *mut bop_runtime_t) -> *mut wasmtime_error_t {
    // SAFETY: per contract.
    fallible(|| unsafe { get(runtime, "runtime")? }.0.run())
}

/// Makes the calling thread run fibers until none is ready, or for `budget_ns` nanoseconds: for a host with an event loop of
/// its own, which calls this whenever `bop_runtime_fd` is readable. It never sleeps. A guest that runs on is
/// interrupted, at most about a millisecond too late; a host function is not. Without `bop_runtime_start` all
/// fibers run on the threads that call this (a helper thread still watches the clock, for timers and preemption).
///
/// Returns: NULL, and in `*next` (which may be NULL) when there will be more to do, as far as can be told (see
/// `bop_now`): 0 for at once, `UINT64_MAX` if only the descriptor will tell. Or an error: called from a fiber, the
/// runtime is shut down, as many threads as there may be run fibers.
/// Context: host threads only; several may call it at once.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live; `next` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_run_for(
    runtime: *mut bop_runtime_t,
    budget_ns: u64,
    next: *mut u64,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let (runtime, next_at) = (unsafe { get(runtime, "runtime")? }, unsafe { next.as_mut() });
        let next = runtime.0.run_for(budget_ns)?;
        if let Some(at) = next_at {
            *at = next.unwrap_or(u64::MAX);
        }
        Ok(())
    })
}

/// A descriptor that is readable exactly when fibers are ready, or what they wait for has happened, and no thread
/// is running them: for the `poll`, `epoll` or event library of a host that calls `bop_run_for`. It makes no sense beside
/// `bop_runtime_start`, whose workers see to that themselves.
///
/// Returns: the descriptor; -1 for NULL.
/// Ownership: the runtime's. Only wait for it, and no longer than the runtime lives.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_fd(runtime: *mut bop_runtime_t) -> std::ffi::c_int {
    call(-1, || {
        // SAFETY: per contract.
        unsafe { runtime.as_ref() }.map_or(-1, |runtime| runtime.0.shared.scheduler.watch())
    })
}

/// Ends a runtime: refuses further fibers, cancels those that live, waits for their end and for that of calls of
/// `bop_blocking_until` that were left alone, then stops all threads. Fibers that were never begun end as cancelled without running. Afterwards it can only be
/// looked at and deleted.
///
/// Returns: NULL, or an error: one that names the fibers, or says how many calls, did not end within `timeout_ns`
/// nanoseconds (the fibers stay cancelled; call it again to go on waiting), called from a fiber or by a thread
/// that has entered a store.
/// Context: host threads only.
/// Switches: never. It blocks the thread.
///
/// # Safety
///
/// `runtime` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_shutdown(
    runtime: *mut bop_runtime_t,
    timeout_ns: u64,
) -> *mut wasmtime_error_t {
    // SAFETY: per contract.
    fallible(|| unsafe { get(runtime, "runtime")? }.0.shut_down(timeout_ns))
}

/// Shuts a runtime down, with the time of `bop_config_shutdown_timeout`, and deletes it. Handles of
/// its fibers and stores stay valid. NULL is fine.
///
/// Returns: NULL, or an error as from `bop_runtime_shutdown`; then the runtime is not deleted.
/// Ownership: takes `runtime` if it returns NULL.
/// Context: host threads only.
/// Switches: never. It blocks the thread.
///
/// # Safety
///
/// `runtime` is NULL, or the caller's and not in use by another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_delete(runtime: *mut bop_runtime_t) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        if let Some(runtime) = unsafe { runtime.as_ref() } {
            runtime.0.shut_down_to_delete()?;
        }
        // SAFETY: per contract; it has no threads and no fibers any more.
        drop(unsafe { take(runtime) });
        Ok(())
    })
}
