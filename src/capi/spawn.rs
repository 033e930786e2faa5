//! Spawning fibers.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use wasmtime::Func;
use wasmtime_c_api::{wasmtime_error_t, wasmtime_instance_pre_t, wasmtime_val_t};

use super::{bop_fiber_t, bop_runtime_t, bop_store_t, call, fallible, get, slice, take, text};
use crate::runtime::spawn::{self, Options};
use crate::wasm::bridge::{instance_pre, wasmtime_context_t};
use crate::wasm::fiber::Fiber;
use crate::wasm::guest::Env;

/// A function of the host that is run as a fiber. What it returns is the fiber's one result, an
/// i64.
pub type bop_host_fn_t = Option<unsafe extern "C" fn(env: *mut c_void) -> i64>;

/// Called when `env` is no longer needed.
pub type bop_finalizer_t = Option<unsafe extern "C" fn(env: *mut c_void)>;

/// Called on the new fiber, with its fresh store, before the module is instantiated in it: gives the
/// store its WASI, limits, data. It may suspend. An error that it returns, which is taken, ends the
/// fiber with `BOP_OUTCOME_FAILED`.
pub type bop_setup_fn_t = Option<
    unsafe extern "C" fn(env: *mut c_void, context: *mut wasmtime_context_t) -> *mut wasmtime_error_t,
>;

/// Options of a spawn. May be used for any number of spawns, not by two threads at once.
pub struct bop_spawn_options_t(Options);

/// Options with their defaults: no name, the runtime's stack size.
///
/// Returns: the options.
/// Ownership: the caller's, until `bop_spawn_options_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_spawn_options_new() -> *mut bop_spawn_options_t {
    call(std::ptr::null_mut(), || Box::into_raw(Box::new(bop_spawn_options_t(Options::default()))))
}

/// Deletes options. NULL is fine.
///
/// Ownership: takes `options`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_delete(options: *mut bop_spawn_options_t) {
    // SAFETY: per contract.
    call((), || drop(unsafe { take(options) }));
}

/// The fiber's name, `len` bytes of UTF-8, for messages and `bop_fiber_name`.
///
/// Ownership: copied.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live; `name` is NULL or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_name(
    options: *mut bop_spawn_options_t,
    name: *const c_char,
    len: usize,
) {
    call((), || {
        // SAFETY: per contract.
        if let (Some(options), Some(name)) = unsafe { (options.as_mut(), text(name, len)) } {
            options.0.name = name;
        }
    });
}

/// The size of the fiber's stack in bytes, 0 for the runtime's. A spawn fails if it is not at least
/// 16 KiB more than the part that is reserved for host functions.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_stack_size(options: *mut bop_spawn_options_t, bytes: usize) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.stack_size = (bytes != 0).then_some(bytes)) };
}

/// The size in bytes of the fiber's stack in each instance that its store shares (see
/// `bop_store_share`), rounded up to whole pages; 0 for what the instance was shared with. Without such
/// instances it means nothing. A spawn fails if the memory could never have so much.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_shadow_stack(
    options: *mut bop_spawn_options_t,
    bytes: u32,
) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.shadow_stack = (bytes != 0).then_some(bytes)) };
}

/// When the fiber shall end at the latest (see `bop_now`); 0 for no deadline. It is then stopped as a cancelled fiber is,
/// wherever it is, and its outcome is `BOP_OUTCOME_TIMED_OUT`; if it has not begun, it never does.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_deadline(
    options: *mut bop_spawn_options_t,
    deadline: u64,
) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.deadline = (deadline != 0).then_some(deadline)) };
}

/// How long the fiber may run on a processor, in nanoseconds, over all its turns; waiting does not count, what the kernel
/// takes from its worker meanwhile does. Fibers that a guest spawns have no budget of their own: `bop_store_cpu_budget` is for
/// all of a store. 0 for no budget;
/// `UINT64_MAX` for one without end, so that `bop_fiber_cpu` tells what it uses. Who has used it up is stopped
/// as a cancelled fiber is, at most about a millisecond later, with `BOP_OUTCOME_OUT_OF_BUDGET`. A host function is not
/// stopped; the Wasm that it returns to is. The fiber's switches cost two looks at the clock more.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_cpu_budget(
    options: *mut bop_spawn_options_t,
    nanoseconds: u64,
) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.budget = (nanoseconds != 0).then_some(nanoseconds)) };
}

/// Until when (see `bop_now`) the spawn shall wait for room if there are as many fibers as there may be, by
/// `bop_config_max_fibers` or `bop_store_max_fibers`; `UINT64_MAX` for as long as it takes, 0 for not at all: it then
/// fails. Those who wait are served in order. A spawn that waits suspends the calling fiber, or blocks the thread.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_wait(options: *mut bop_spawn_options_t, deadline: u64) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.patience = (deadline != 0).then_some(deadline)) };
}

/// How many bytes each linear memory of a fresh store may have, and how many elements each table; 0 for no limit. What
/// would go beyond fails in the guest (`memory.grow` returns -1), or ends the fiber with `BOP_OUTCOME_FAILED` if
/// it is instantiated so large. For `bop_spawn_instance` only; for other stores see `wasmtime_store_limiter`.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_memory(
    options: *mut bop_spawn_options_t,
    bytes: u64,
    table_elements: u64,
) {
    let limit = |n: u64| (n != 0).then_some(n);
    // SAFETY: per contract.
    unsafe {
        set(options, |options| {
            options.memory = limit(bytes);
            options.table = limit(table_elements);
        });
    }
}

/// The host's descriptors that the WASI guest of a fresh store has for standard input, output and errors; -1 leaves it to
/// the store's WASI. Reads and writes of pipes, sockets and terminals then suspend the fiber until they can go on. It
/// needs `bop_linker_define_wasi`, and is for `bop_spawn_instance` only; for other stores see `bop_store_stdio`.
///
/// Ownership: the descriptors stay the caller's, who closes them with `bop_close`, after the fiber's end.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_options_stdio(
    options: *mut bop_spawn_options_t,
    input: c_int,
    output: c_int,
    errors: c_int,
) {
    // SAFETY: per contract.
    unsafe { set(options, |options| options.stdio = [input, output, errors]) };
}

/// Sets what C wants to be set.
///
/// # Safety
///
/// `options` is NULL or live.
unsafe fn set(options: *mut bop_spawn_options_t, set: impl FnOnce(&mut Options)) {
    // SAFETY: per contract.
    call((), || unsafe { options.as_mut() }.map_or((), |options| set(&mut options.0)));
}

/// The options that C gave.
///
/// # Safety
///
/// NULL or live.
unsafe fn options(options: *const bop_spawn_options_t) -> Options {
    // SAFETY: per contract.
    unsafe { options.as_ref() }.map_or_else(Options::default, |options| options.0.clone())
}

/// Gives out the handle; without a place for it the fiber is detached.
///
/// # Safety
///
/// NULL or writable.
unsafe fn hand_out(out: *mut *mut bop_fiber_t, fiber: Arc<Fiber>) {
    // SAFETY: per contract.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = bop_fiber_t::new(fiber);
    }
}

/// Spawns a fiber that calls `func` in a store, beside any others of that store. `args` must fit the
/// function's type.
///
/// Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
/// `*out` is left alone: wrong arguments, a function of another store, a store with a heap of
/// garbage-collected objects and a live fiber, too many fibers, a stack too small, no memory, shut down.
/// Ownership: `args` are copied. The handle is the caller's, until `bop_fiber_detach`.
/// Context: any thread or fiber.
/// Switches: never, unless it waits for room (`bop_spawn_options_wait`).
///
/// # Safety
///
/// Pointers are NULL or live; `args` has `nargs` values, each of which holds what its kind says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn(
    store: *mut bop_store_t,
    func: *const Func,
    args: *const wasmtime_val_t,
    nargs: usize,
    options: *const bop_spawn_options_t,
    out: *mut *mut bop_fiber_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract; C's null function is no valid `Func`, so no reference is made.
        unsafe {
            let store = get(store, "store")?;
            get(func.cast::<u64>(), "func")?;
            let args = slice(args, nargs, "args")?;
            hand_out(out, spawn::call(&store.0, func, args, &self::options(options))?);
        }
        Ok(())
    })
}

/// Spawns a fiber that calls a function of the host. `docs/host-code.md` says what such a function
/// must mind.
///
/// Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
/// `*out` is left alone: too many fibers, a stack too small, no memory, shut down.
/// Ownership: `finalizer`, if there is one, is called with `env` exactly once: on the fiber after the
/// function has returned, or when the fiber was cancelled before it began; on the caller's thread if
/// this fails. The handle is the caller's, until `bop_fiber_detach`.
/// Context: any thread or fiber.
/// Switches: never, unless it waits for room (`bop_spawn_options_wait`).
///
/// # Safety
///
/// Pointers are NULL or live; `function` and `finalizer` may be called on any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_host(
    runtime: *mut bop_runtime_t,
    function: bop_host_fn_t,
    env: *mut c_void,
    finalizer: bop_finalizer_t,
    options: *const bop_spawn_options_t,
    out: *mut *mut bop_fiber_t,
) -> *mut wasmtime_error_t {
    let env = Env { data: env, finalizer };
    fallible(|| {
        let env = env;
        // SAFETY: per contract.
        unsafe {
            let runtime = get(runtime, "runtime")?;
            let function = function.ok_or("function is NULL")?;
            hand_out(out, runtime.0.host(function, env, &self::options(options))?);
        }
        Ok(())
    })
}

/// Spawns a fiber that makes a store, instantiates a module in it, and calls one of its exports (`name`,
/// of `len` bytes). All of it, start function included, happens on the fiber. When the fiber ends, so does the
/// program: fibers that its guest has spawned (`bop_linker_define`) are cancelled. With the last of them the store is
/// deleted, on a worker: the finalizers of its data must not make calls that block.
///
/// Returns: NULL and a handle in `*out` (`out` may be NULL: the fiber is detached); or an error, and
/// `*out` is left alone: no such function, wrong arguments, another engine's module, too many fibers, a
/// stack too small, no memory, shut down. If the set-up or the instantiation fails, the fiber's
/// outcome says so.
/// Ownership: `pre` is copied, as are `name` and `args`. `setup` may be NULL. `finalizer` is called
/// with `env` exactly once: when the store has been deleted; on the fiber if it was cancelled before it began; on
/// the caller's thread if this fails. The handle is the caller's, until
/// `bop_fiber_detach`.
/// Context: any thread or fiber.
/// Switches: never, unless it waits for room (`bop_spawn_options_wait`).
///
/// # Safety
///
/// Pointers are NULL or live; `name` has `len` bytes; `args` has `nargs` values, each of which holds what
/// its kind says; `setup` and `finalizer` may be called on any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_spawn_instance(
    runtime: *mut bop_runtime_t,
    pre: *const wasmtime_instance_pre_t,
    name: *const c_char,
    len: usize,
    args: *const wasmtime_val_t,
    nargs: usize,
    setup: bop_setup_fn_t,
    env: *mut c_void,
    finalizer: bop_finalizer_t,
    options: *const bop_spawn_options_t,
    out: *mut *mut bop_fiber_t,
) -> *mut wasmtime_error_t {
    let env = Env { data: env, finalizer };
    fallible(|| {
        let env = env;
        // SAFETY: per contract.
        unsafe {
            let (runtime, pre) = (get(runtime, "runtime")?, get(pre, "pre")?);
            get(name, "name")?;
            let name = slice(name.cast::<u8>(), len, "name")?;
            let name = str::from_utf8(name).map_err(|_| "name is not UTF-8")?;
            let (pre, args) = (instance_pre(pre), slice(args, nargs, "args")?);
            let options = self::options(options);
            hand_out(out, runtime.0.instance(pre, name, args, setup, env, &options)?);
        }
        Ok(())
    })
}
