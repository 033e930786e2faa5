//! For hosts with coroutines of their own: what they need to call Wasm from them, and to resume them
//! on other threads.

use std::ffi::c_void;
use std::ptr::null_mut;

use wasmtime::Engine;
use wasmtime_c_api::wasmtime_error_t;

use super::{call, fallible, get, get_mut};
use crate::wasm::activation::{StoreWords, ThreadWord, Words};
use crate::wasm::bridge::wasmtime_context_t;
use crate::wasm::locate;
use crate::wasm::shared::MIN_WASM_STACK;

/// What Wasmtime remembers of the Wasm on a coroutine's stack. Make it with `bop_activation_init`; its
/// content is private.
#[repr(C)]
pub struct bop_activation_t {
    /// Private.
    pub words: [usize; 32],
}

/// What a `bop_activation_t` holds.
#[derive(Clone, Copy)]
#[repr(C)]
struct Activation {
    stack_limit: usize,
    /// The activation pointer of the coroutine, while it is suspended.
    pointer: usize,
    /// The store's words of the coroutine, while it is suspended; none before its first turn.
    words: Option<Words>,
    /// What the thread and the store had before the coroutine's turn.
    outer_pointer: usize,
    outer_words: Option<Words>,
}

const _: () = assert!(
    size_of::<Activation>() <= size_of::<bop_activation_t>()
        && align_of::<Activation>() <= align_of::<bop_activation_t>()
);

/// Prepares the calling thread for Wasm: signal stack, trap handling. Wasmtime does it at the first
/// call; a thread that resumes a coroutine in the middle of one must have done it before. Again is
/// harmless.
///
/// Returns: NULL, or an error if this build of Wasmtime is not as BOP knows it.
/// Context: any thread, outside fibers.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn wasmtime_store_tls_init() -> *mut wasmtime_error_t {
    fallible(|| {
        locate::locate()?;
        Engine::tls_eager_initialize();
        Ok(())
    })
}

/// The pointer to the youngest activation of Wasm on this thread.
///
/// Returns: the pointer; NULL if no Wasm is on this stack.
/// Context: any thread, outside fibers.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn wasmtime_tls_get() -> *mut c_void {
    call(null_mut(), || match locate::locate() {
        Ok(()) => ThreadWord::here().get() as *mut c_void,
        Err(_) => null_mut(),
    })
}

/// Sets the pointer that `wasmtime_tls_get` returns: with the value that it had when the stack that
/// runs next was left. This is enough if no two coroutines share a store, and each stack has room for what Wasm may use on
/// it, `wasmtime_config_max_wasm_stack_set`, and for host functions: Wasm does not know where the stack ends.
///
/// Context: any thread, outside fibers.
/// Switches: never.
///
/// # Safety
///
/// `pointer` is NULL or what `wasmtime_tls_get` gave on the stack that runs next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wasmtime_tls_set(pointer: *mut c_void) {
    call((), || {
        if locate::locate().is_ok() {
            // SAFETY: per contract.
            unsafe { ThreadWord::here().set(pointer as usize & !1) };
        }
    });
}

/// Prepares an activation for a coroutine that has not begun, with the stack of `size` bytes at
/// `stack` (its lowest address). Wasm leaves the lowest `host_stack` bytes to the host functions that
/// it calls; it traps before it goes there.
///
/// Returns: NULL, or an error: a NULL, a stack that can't be right.
/// Ownership: the activation needs no clean-up.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `activation` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_activation_init(
    activation: *mut bop_activation_t,
    stack: *mut c_void,
    size: usize,
    host_stack: usize,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract; only written to.
        let out = unsafe { get_mut(activation, "activation")? };
        // SAFETY: only its address is used.
        let bottom = unsafe { get(stack.cast::<u8>(), "stack")? } as *const u8 as usize;
        if bottom.checked_add(size).is_none() {
            return Err(format!("no stack of {size} bytes can start there"));
        }
        if size < host_stack.saturating_add(MIN_WASM_STACK) {
            return Err(format!(
                "a stack of {size} bytes is too small: {host_stack} are reserved for host functions \
                 and Wasm needs at least {MIN_WASM_STACK}"
            ));
        }
        let fresh = Activation {
            stack_limit: bottom + host_stack,
            pointer: 0,
            words: None,
            outer_pointer: 0,
            outer_words: None,
        };
        // SAFETY: it is large enough and aligned (asserted above).
        unsafe { (&raw mut *out).cast::<Activation>().write(fresh) };
        Ok(())
    })
}

/// The two places of an activation, and the activation.
///
/// # Safety
///
/// As for `bop_activation_restore`.
unsafe fn parts<'a>(
    context: *mut wasmtime_context_t,
    activation: *mut bop_activation_t,
) -> Result<(ThreadWord, StoreWords, &'a mut Activation), String> {
    // SAFETY: only looks whether it is NULL.
    unsafe { get(context.cast::<u8>(), "context")? };
    // SAFETY: `bop_activation_init` has put an `Activation` there.
    let activation = unsafe { get_mut(activation.cast::<Activation>(), "activation")? };
    locate::locate()?;
    Ok((ThreadWord::here(), StoreWords::of_context(context), activation))
}

/// Call this right before switching to a coroutine that uses the store, or, where the switch is somebody else's, in the
/// coroutine right after it: puts the coroutine's activation in place of the thread's and the store's. A store with a heap of garbage-collected objects
/// may have one coroutine only: a collection does not see what a suspended one refers to.
///
/// Returns: NULL, or an error: a NULL, the activation is in place already, a build of Wasmtime that BOP does
/// not know.
/// Context: the thread that runs the coroutine; nobody else uses the store.
/// Switches: never.
///
/// # Safety
///
/// `context` is NULL or live; `activation` is NULL or was initialised, and is this coroutine's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_activation_restore(
    context: *mut wasmtime_context_t,
    activation: *mut bop_activation_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        unsafe {
            let (thread, store, activation) = parts(context, activation)?;
            if activation.outer_words.is_some() {
                return Err("the activation is in place already: save comes first".into());
            }
            let outer = store.read();
            activation.outer_pointer = thread.get();
            activation.outer_words = Some(outer);
            let fresh = || Words::fresh(&outer, activation.stack_limit, (0, 0));
            store.write(&activation.words.unwrap_or_else(fresh));
            thread.set(activation.pointer);
        }
        Ok(())
    })
}

/// Call this right after a coroutine has switched back, or in the coroutine right before it does: keeps its activation,
/// and puts that of the thread and the store back. On the thread that called `bop_activation_restore`.
///
/// Returns: NULL, or an error: a NULL, no `bop_activation_restore` before, a build of Wasmtime that BOP does
/// not know.
/// Context: the thread that runs the coroutine.
/// Switches: never.
///
/// # Safety
///
/// As for `bop_activation_restore`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_activation_save(
    context: *mut wasmtime_context_t,
    activation: *mut bop_activation_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract.
        unsafe {
            let (thread, store, activation) = parts(context, activation)?;
            let outer = activation.outer_words.take();
            let outer = outer.ok_or("the activation is not in place: restore comes first")?;
            activation.pointer = thread.get();
            activation.words = Some(store.read());
            store.write(&outer);
            thread.set(activation.outer_pointer);
        }
        Ok(())
    })
}
