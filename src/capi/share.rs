//! Instances that many fibers share.

use std::ffi::c_char;

use wasmtime::Instance;
use wasmtime_c_api::wasmtime_error_t;

use super::{bop_store_t, call, fallible, get, take, text};
use crate::runtime::share::share;
use crate::wasm::shadow::{Plan, Source};

/// How an instance is shared. Not to be used by two threads at once.
pub struct bop_share_options_t(Plan);

/// Options with their defaults: stacks of 64 KiB with a guard of 16 KiB, which grow the memory; the exports
/// that `bop_module_prepare` names.
///
/// Returns: the options.
/// Ownership: the caller's, until `bop_share_options_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_share_options_new() -> *mut bop_share_options_t {
    call(std::ptr::null_mut(), || Box::into_raw(Box::new(bop_share_options_t(Plan::default()))))
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
pub unsafe extern "C" fn bop_share_options_delete(options: *mut bop_share_options_t) {
    // SAFETY: per contract.
    call((), || drop(unsafe { take(options) }));
}

/// Sets an option, unless there is nothing to set it in.
fn set(options: *mut bop_share_options_t, option: impl FnOnce(&mut Plan)) {
    call((), || {
        // SAFETY: NULL, or a builder that the caller owns.
        if let Some(options) = unsafe { options.as_mut() } {
            option(&mut options.0);
        }
    });
}

/// The size in bytes of a fiber's stack in the instance's memory, rounded up to whole pages. Default
/// 64 KiB. A spawn may ask for another one.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_share_options_stack_size(options: *mut bop_share_options_t, bytes: u32) {
    set(options, |plan| plan.stack_size = bytes);
}

/// The size in bytes of the guard below each stack, rounded up to whole pages. Default 16 KiB. A fiber that
/// touches the guard of its stack traps at its next function entry or loop head, and harms nobody; a
/// single frame larger than the guard can step over it. 0: no guards, and an overflow is seen only when
/// the fiber is switched out or looks up while its stack is below its end. Guards are made as those of
/// native stacks are (`bop_config_guard`); with `mprotect`, both together allow about 16,000 fibers.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_share_options_guard_size(options: *mut bop_share_options_t, bytes: u32) {
    set(options, |plan| plan.guard_size = bytes);
}

/// Takes the memory for stacks from the guest's own allocator, exported under these names (`malloc`
/// and `free`, of C's types), in place of growing the memory. For guests that take all that the memory
/// grows by for their own (Emscripten's; wasi-libc's before 2023, unless it was called once already). The allocator is called while no fiber of the store
/// has lost its turn somewhere in the guest: a new fiber waits for that, or finds a stack that was
/// reserved or given back. It must not suspend.
///
/// Ownership: the names are copied.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live; the names have as many bytes of UTF-8 as their lengths say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_share_options_allocator(
    options: *mut bop_share_options_t,
    allocate: *const c_char,
    allocate_len: usize,
    release: *const c_char,
    release_len: usize,
) {
    set(options, |plan| {
        // SAFETY: per contract.
        let names = unsafe { (text(allocate, allocate_len), text(release, release_len)) };
        if let (Some(allocate), Some(release)) = names {
            plan.source = Source::Allocator { allocate, release };
        }
    });
}

/// Makes so many stacks at once, when the instance is shared. More are made when they are needed.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_share_options_reserve(options: *mut bop_share_options_t, stacks: usize) {
    set(options, |plan| plan.reserve = stacks);
}

/// The names of the exports to use, for a module with names of its own: a mutable i32 global, and the
/// memory that its stack lies in. NULL leaves one as it is.
///
/// Ownership: the names are copied.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live; the names have as many bytes of UTF-8 as their lengths say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_share_options_exports(
    options: *mut bop_share_options_t,
    stack_pointer: *const c_char,
    stack_pointer_len: usize,
    memory: *const c_char,
    memory_len: usize,
) {
    set(options, |plan| {
        // SAFETY: per contract.
        let names = unsafe { (text(stack_pointer, stack_pointer_len), text(memory, memory_len)) };
        plan.stack_pointer = names.0.or(plan.stack_pointer.take());
        plan.memory = names.1.or(plan.memory.take());
    });
}

/// Shares an instance among the fibers that will be spawned in its store: each gets a stack of its
/// own in the instance's memory, with the stack pointer to it, as compiled C, C++ and Rust need it.
/// Guests that keep no such stack need no sharing. All else in the instance is shared: memory, globals,
/// tables; `docs/sharing.md` says what a guest must mind. A store may share several instances.
///
/// Returns: NULL, or an error: called from a fiber, the store has live fibers, no such exports, a
/// stack pointer that is shared already, another store's instance, stacks that do not fit into the
/// memory or can't have guards there, whatever `bop_store_enter` returns.
/// Ownership: `options` stays the caller's, and may be NULL.
/// Context: host threads only, whether they have entered the store or not.
/// Switches: never. It blocks the thread while somebody else has entered the store.
///
/// # Safety
///
/// Pointers are NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_store_share(
    store: *mut bop_store_t,
    instance: *const Instance,
    options: *const bop_share_options_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        let plan = Plan::default();
        // SAFETY: per contract; no reference to the instance is made before its store is known.
        unsafe {
            let store = get(store, "store")?;
            get(instance.cast::<u64>(), "instance")?;
            share(&store.0, instance, options.as_ref().map_or(&plan, |options| &options.0))
        }
    })
}
