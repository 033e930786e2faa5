//! Stores that were handed to a runtime.

use std::sync::Arc;

use wasmtime::AsContextMut;
use wasmtime_c_api::{wasmtime_error_t, wasmtime_store_t};

use super::{bop_runtime_t, bop_status_t, bop_trap_policy_number, call, fallible, get, get_mut, take};
use crate::runtime::on_worker;
use crate::wasm::bridge::{context_of, wasmtime_context_t};
use crate::wasm::strand::Strand;

/// A Wasmtime store that a runtime looks after. Its fibers take turns, and never run at once. Any
/// thread may use the handle.
pub struct bop_store_t(pub(super) Arc<Strand>);

impl Drop for bop_store_t {
    fn drop(&mut self) {
        if self.0.doors.held_here() && self.0.exit().is_err() {
            // From within a call: frames on this very stack use it, so it is never freed.
            self.0.forget_thread();
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        self.0.remove_user(true);
    }
}

/// Hands a store to a runtime, with all that is in it; `wasmtime_store_t`'s functions may not be used
/// on it any more. The runtime sets the store's epoch callback and deadline; before that, Wasm in the store traps
/// at its first epoch check unless `wasmtime_context_set_epoch_deadline` was called.
///
/// Returns: NULL and the handle in `*out`, or an error: made with another engine, set up for Wasmtime's
/// async calls, a NULL.
/// Ownership: takes `store`, in any case; an error deletes it. The handle is the caller's, until
/// `bop_store_delete`.
/// Context: any thread or fiber, but the store must not be in use.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live; `store` is NULL or the caller's; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_new(
    runtime: *mut bop_runtime_t,
    store: *mut wasmtime_store_t,
    out: *mut *mut bop_store_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let own = unsafe { take(store) };
        // SAFETY: per contract.
        let (runtime, out) = unsafe { (get(runtime, "runtime")?, get_mut(out, "out")?) };
        let strand = runtime.0.store(own.ok_or("store is NULL")?)?;
        *out = Box::into_raw(Box::new(bop_store_t(strand)));
        Ok(())
    })
}

/// Lets go of a store. Its fibers go on (see `bop_store_cancel`). It is deleted when its last fiber has ended, which may be on a worker: the
/// finalizers of the store's data and functions must not make calls that block. A thread that has
/// entered it exits. From within a call of the entered store it can't be deleted: then it never is, and its
/// fibers never run again. NULL is fine.
///
/// Ownership: takes the handle.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_delete(store: *mut bop_store_t) {
    // SAFETY: per contract.
    call((), || drop(unsafe { take(store) }));
}

/// Sets what a trap of one fiber means to the others of the store. Default `BOP_TRAP_ISOLATE`. Setting it
/// back to that makes a poisoned store take fibers again. An exit (WASI's `proc_exit`) is no trap. Which fiber
/// poisoned the store, and by what, is what the error of a later spawn says.
///
/// Returns: NULL, or an error: a number that is no policy, a NULL.
/// Context: any thread or fiber. It counts from the next trap on.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_trap_policy(
    store: *mut bop_store_t,
    policy: bop_trap_policy_number,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let store = unsafe { get(store, "store")? };
        match policy {
            0 => store.0.policy.set_poisons(false),
            1 => store.0.policy.set_poisons(true),
            other => return Err(format!("there is no trap policy with the number {other}")),
        }
        Ok(())
    })
}

/// Sets the store's weight: how many quanta it may run at a stretch while others wait for its worker. So
/// a store of weight 3 gets three times the share of one of weight 1, however many fibers either has; and
/// others wait for so much longer. 1 to 1,000; default 1, which is also what host fibers and
/// `bop_spawn_instance` have.
///
/// Returns: NULL, or an error: a weight out of range, a NULL.
/// Context: any thread or fiber. It counts from the store's next turn on.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_weight(store: *mut bop_store_t, weight: u32) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let store = unsafe { get(store, "store")? };
        if !(1..=1000).contains(&weight) {
            return Err(format!("a weight of {weight}: it may be 1 to 1000"));
        }
        store.0.set_weight(weight);
        Ok(())
    })
}

/// Sets how many fibers the store may have at a time; a spawn beyond fails. Without it the runtime's limit holds, and
/// for those that its guest spawns (`bop_linker_define`) 131,072. Those that are there already stay.
///
/// Returns: NULL, or an error: 0 fibers, a NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_max_fibers(
    store: *mut bop_store_t,
    fibers: usize,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let store = unsafe { get(store, "store")? };
        if fibers == 0 {
            return Err("a store of 0 fibers is of no use".into());
        }
        store.0.set_max_fibers(fibers);
        Ok(())
    })
}

/// The host's descriptors that the WASI guests of a store have for standard input, output and errors; -1 leaves it to
/// the store's WASI. See `bop_spawn_options_stdio`.
///
/// Returns: `BOP_OK`, `BOP_INVALID`.
/// Ownership: the descriptors stay the caller's, who closes them with `bop_close`, when no guest uses them any more.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_stdio(
    store: *mut bop_store_t,
    input: std::ffi::c_int,
    output: std::ffi::c_int,
    errors: std::ffi::c_int,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let Some(store) = (unsafe { store.as_ref() }) else { return bop_status_t::BOP_INVALID };
        store.0.set_stdio([input, output, errors]);
        bop_status_t::BOP_OK
    })
}

/// When all fibers of the store shall end (see `bop_now`); 0 for never. They are then stopped as `bop_spawn_options_deadline`
/// says, and later spawns are refused. A deadline that has passed can't be taken back.
///
/// Returns: `BOP_OK`, `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_deadline(store: *mut bop_store_t, deadline: u64) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let Some(store) = (unsafe { store.as_ref() }) else { return bop_status_t::BOP_INVALID };
        store.0.set_deadline((deadline != 0).then_some(deadline));
        bop_status_t::BOP_OK
    })
}

/// How long all fibers of the store together may run on a processor from now on, in nanoseconds; `UINT64_MAX` without
/// end, but metered for `bop_store_cpu`. Whoever runs when it is used up is stopped as `bop_spawn_options_cpu_budget` says, and so
/// are all that run later, until there is more: call it again.
///
/// Returns: `BOP_OK`, `BOP_INVALID`: also for 0.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_cpu_budget(
    store: *mut bop_store_t,
    nanoseconds: u64,
) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let store = unsafe { store.as_ref() }.filter(|_| nanoseconds != 0);
        let Some(store) = store else { return bop_status_t::BOP_INVALID };
        store.0.set_budget(nanoseconds);
        bop_status_t::BOP_OK
    })
}

/// How long the store's fibers have run on a processor, in nanoseconds, since `bop_store_cpu_budget` was first called.
///
/// Returns: the time up to now, that of one that runs included; 0 before that call, and for NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_cpu(store: *const bop_store_t) -> u64 {
    // SAFETY: per contract.
    call(0, || unsafe { store.as_ref() }.map_or(0, |store| store.0.meter.used()))
}

/// Cancels all fibers that the store has, those included that its guest has spawned, as `bop_fiber_cancel` cancels
/// one. The store takes new ones as before. Fibers that are being spawned meanwhile may be missed.
///
/// Returns: `BOP_OK`, `BOP_INVALID`.
/// Context: any thread or fiber.
/// Switches: never. It does not wait for their end.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_cancel(store: *mut bop_store_t) -> bop_status_t {
    call(bop_status_t::BOP_INVALID, || {
        // SAFETY: per contract.
        let Some(store) = (unsafe { store.as_ref() }) else { return bop_status_t::BOP_INVALID };
        store.0.cancel_all(None);
        bop_status_t::BOP_OK
    })
}

/// Waits for the store's fibers to be between two turns, and keeps them from running until
/// `bop_store_exit`: meanwhile the calling thread may use the store as it likes, calls of Wasm
/// included (they run on the thread's own stack, and are not preempted). A fiber that runs gives way at
/// its next epoch check or suspension; a host function that does neither keeps the thread waiting.
///
/// Returns: NULL and Wasmtime's context in `*out`, valid until the exit; or an error: called from a
/// fiber, entered already by this thread, fibers of the store are ready and the runtime has no worker, a
/// store with live fibers and a heap of garbage-collected objects.
/// Ownership: the context is the store's.
/// Context: host threads only.
/// Switches: never. It blocks the thread.
///
/// # Safety
///
/// `store` is NULL or live; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_enter(
    store: *mut bop_store_t,
    out: *mut *mut wasmtime_context_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let (store, out) = unsafe { (get(store, "store")?, get_mut(out, "out")?) };
        let strand = &store.0;
        if on_worker() {
            return Err("called from a fiber: fibers use the context that their host functions get".into());
        }
        if strand.doors.held_here() {
            return Err("this thread has entered the store already".into());
        }
        strand.enter()?;
        if strand.fibers() > 0 && strand.has_gc_heap() {
            strand.exit()?;
            return Err("the store has live fibers and a GC heap: a collection would not see what \
                        suspended fibers refer to"
                .into());
        }
        // SAFETY: this thread owns the strand until it exits.
        *out = context_of(unsafe { strand.store() }.as_context_mut());
        Ok(())
    })
}

/// Lets the store's fibers run again.
///
/// Returns: NULL, or an error: the calling thread has not entered, or is still in a call of the store.
/// Context: the host thread that entered.
/// Switches: never.
///
/// # Safety
///
/// `store` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_exit(store: *mut bop_store_t) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        let store = unsafe { get(store, "store")? };
        if on_worker() {
            return Err("called from a fiber, which can't have entered".into());
        }
        if !store.0.doors.held_here() {
            return Err("this thread has not entered the store".into());
        }
        store.0.exit()
    })
}
