//! What a fiber that runs a guest does: a call in a store, or an instance of its own.

use std::ffi::c_void;

use wasmtime::{AsContextMut, Error, Func, InstancePre, Store, Trap, WasmBacktrace};
use wasmtime_c_api::{self as c, WasmtimeStoreData, wasmtime_error_t, wasmtime_val_t};

use super::end::{End, Outcome, Values};
use super::fiber::{Body, Fiber};
use super::bridge::{self, wasmtime_context_t};
use super::preempt;
use super::signature::{Known, Signature};

/// What C calls a `bop_setup_fn_t`.
pub type Setup =
    unsafe extern "C" fn(env: *mut c_void, context: *mut wasmtime_context_t) -> *mut wasmtime_error_t;

/// A pointer of the host's with its finalizer, which runs when this is dropped: exactly once.
pub struct Env {
    pub data: *mut c_void,
    pub finalizer: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: the pointer is the host's, who was told that it is used on other threads.
unsafe impl Send for Env {}

impl Drop for Env {
    fn drop(&mut self) {
        if let Some(finalizer) = self.finalizer {
            // SAFETY: the host gave both for this call.
            unsafe { finalizer(self.data) }
        }
    }
}

/// A call of `func` in the store of the fiber's strand. `args` fit its signature. `stack`: bytes of its
/// shadow stack, if there is one to be.
pub struct Call {
    pub func: Func,
    pub args: Values,
    pub signature: Known,
    pub stack: Option<u32>,
}

impl Call {
    pub fn run(self, fiber: &Fiber) -> End {
        if fiber.cancelled() {
            return End::plain(fiber.stopped_outcome());
        }
        if let Err(e) = fiber.strand.equip(fiber, self.stack) {
            return ended(fiber, Error::msg(e), Outcome::Failed);
        }
        // SAFETY: the running fiber; its strand was made with a store, and has it until the fiber
        // has ended.
        let store = unsafe { fiber.strand.store() };
        run(fiber, store, self.func, &self.args, &self.signature)
    }
}

/// What [`instance`] is to do.
pub struct Fresh {
    pub pre: InstancePre<WasmtimeStoreData>,
    pub export: String,
    pub args: Values,
    pub signature: Signature,
    pub setup: Option<Setup>,
    pub env: Env,
    /// Bytes that each memory may have, and elements of each table.
    pub memory: Option<u64>,
    pub table: Option<u64>,
}

/// A store and an instance of its own, and a call of one of its exports.
pub fn instance(plan: Fresh) -> Body {
    Body::Other(Box::new(move |fiber| {
        if fiber.cancelled() {
            return End::plain(fiber.stopped_outcome());
        }
        let mut own = c::wasmtime_store_new(&fiber.shared().c_engine, std::ptr::null_mut(), None);
        preempt::install(bridge::store(&mut own));
        if plan.memory.is_some() || plan.table.is_some() {
            let limit = |n: Option<u64>| n.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
            c::wasmtime_store_limiter(&mut own, limit(plan.memory), limit(plan.table), -1, -1, -1);
        }
        let data = plan.env.data;
        fiber.strand.adopt(fiber, own, plan.env);
        // SAFETY: the running fiber; the store stays until the strand's last fiber has ended.
        let store = unsafe { fiber.strand.store() };
        if let Some(setup) = plan.setup {
            // SAFETY: the host's function, called as it was promised. An error that it returns is ours.
            let error = unsafe { setup(data, bridge::context_of(store.as_context_mut())) };
            if !error.is_null() {
                // SAFETY: as above.
                let error = unsafe { Box::from_raw(error) };
                return ended(fiber, (*error).into(), Outcome::Failed);
            }
        }
        let (export, args) = (&plan.export, &plan.args);
        instantiate_and_run(fiber, store, &plan.pre, export, args, &plan.signature)
    }))
}

fn instantiate_and_run(
    fiber: &Fiber,
    store: &mut Store<WasmtimeStoreData>,
    pre: &InstancePre<WasmtimeStoreData>,
    export: &str,
    args: &[wasmtime_val_t],
    signature: &Signature,
) -> End {
    let instance = match pre.instantiate(&mut *store) {
        Ok(instance) => instance,
        Err(error) => {
            // A start function's trap is a trap; all else says that there is no instance.
            let trapped = error.is::<Trap>() || error.is::<WasmBacktrace>();
            let outcome = if trapped { Outcome::Trapped } else { Outcome::Failed };
            return ended(fiber, error, outcome);
        }
    };
    match instance.get_func(&mut *store, export) {
        Some(func) => run(fiber, store, func, args, signature),
        None => {
            let text = format!("the instance exports no function {export:?}");
            ended(fiber, Error::msg(text), Outcome::Failed)
        }
    }
}

fn run(
    fiber: &Fiber,
    store: &mut Store<WasmtimeStoreData>,
    func: Func,
    args: &[wasmtime_val_t],
    signature: &Signature,
) -> End {
    let results = if signature.is_plain() {
        // SAFETY: the arguments fit (`copy_args`), and `func` has this signature and is the store's.
        unsafe { signature.call_plain(&mut *store, func, args) }
    } else {
        // SAFETY: the arguments fit, and each owns what it refers to.
        unsafe { signature.call(store, func, args) }
    };
    results.map_or_else(|error| ended(fiber, error, Outcome::Trapped), End::returned)
}

/// The end that an error makes: an exit and a cancellation are not what `otherwise` says.
fn ended(fiber: &Fiber, error: Error, otherwise: Outcome) -> End {
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return End { exit_code: exit.0, ..End::plain(Outcome::Exited) };
    }
    End::with_error(if fiber.told() { fiber.stopped_outcome() } else { otherwise }, error)
}
