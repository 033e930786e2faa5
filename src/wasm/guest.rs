//! What a fiber that runs a guest does: a call in a store, or an instance of its own.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use wasmtime::{
    AsContextMut, Error, Func, FuncType, HeapType, InstancePre, RootScope, Store, Trap, Val, ValType,
    WasmBacktrace,
};
use wasmtime_c_api::{self as c, WasmtimeStoreData, wasmtime_error_t, wasmtime_val_t};

use super::activation::StoreWords;
use super::fiber::{Body, End, Fiber, Outcome};
use super::bridge::{self, wasmtime_context_t};
use super::preempt;

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

/// A call of `func` in the store of the fiber's strand. `args` fit its type.
pub fn call(func: Func, args: Vec<wasmtime_val_t>, results: usize) -> Body {
    Box::new(move |fiber| {
        if fiber.cancelled() {
            return End::plain(Outcome::Cancelled);
        }
        // SAFETY: the running fiber; its strand was made with a store, and has it until the fiber
        // has ended.
        let store = unsafe { fiber.strand.store() };
        run(fiber, store, func, &args, results)
    })
}

/// What [`instance`] is to do.
pub struct Instance {
    pub pre: InstancePre<WasmtimeStoreData>,
    pub export: String,
    pub args: Vec<wasmtime_val_t>,
    pub results: usize,
    pub setup: Option<Setup>,
    pub env: Env,
}

/// A store and an instance of its own, and a call of one of its exports.
pub fn instance(plan: Instance) -> Body {
    Box::new(move |fiber| {
        if fiber.cancelled() {
            return End::plain(Outcome::Cancelled);
        }
        let mut own = c::wasmtime_store_new(&fiber.shared().c_engine, std::ptr::null_mut(), None);
        let store = bridge::store(&mut own);
        preempt::install(store);
        fiber.strand.adopt(fiber, StoreWords::of(&mut *store));
        let end = instantiate_and_run(fiber, store, &plan);
        fiber.strand.abandon();
        end
    })
}

fn instantiate_and_run(fiber: &Fiber, store: &mut Store<WasmtimeStoreData>, plan: &Instance) -> End {
    if let Some(setup) = plan.setup {
        // SAFETY: the host's function, called as it was promised. An error that it returns is ours.
        let error = unsafe { setup(plan.env.data, bridge::context_of(store.as_context_mut())) };
        if !error.is_null() {
            // SAFETY: as above.
            let error = unsafe { Box::from_raw(error) };
            return ended(fiber, (*error).into(), Outcome::Failed);
        }
    }
    let instance = match plan.pre.instantiate(&mut *store) {
        Ok(instance) => instance,
        Err(error) => {
            // A start function's trap is a trap; all else says that there is no instance.
            let trapped = error.is::<Trap>() || error.is::<WasmBacktrace>();
            let outcome = if trapped { Outcome::Trapped } else { Outcome::Failed };
            return ended(fiber, error, outcome);
        }
    };
    match instance.get_func(&mut *store, &plan.export) {
        Some(func) => run(fiber, store, func, &plan.args, plan.results),
        None => {
            let text = format!("the instance exports no function {:?}", plan.export);
            ended(fiber, Error::msg(text), Outcome::Failed)
        }
    }
}

fn run(
    fiber: &Fiber,
    store: &mut Store<WasmtimeStoreData>,
    func: Func,
    args: &[wasmtime_val_t],
    results: usize,
) -> End {
    let mut scope = RootScope::new(store);
    // SAFETY: `check_args` has seen the values, and each owns what it refers to.
    let params: Vec<Val> = args.iter().map(|arg| unsafe { arg.to_val(&mut scope) }).collect();
    let mut out = vec![Val::I32(0); results];
    match func.call(&mut scope, &params, &mut out) {
        Ok(()) => {
            let out = out.into_iter().map(|val| wasmtime_val_t::from_val(&mut scope, val));
            End::returned(out.collect())
        }
        Err(error) => ended(fiber, error, Outcome::Trapped),
    }
}

/// The end that an error makes: an exit and a cancellation are not what `otherwise` says.
fn ended(fiber: &Fiber, error: Error, otherwise: Outcome) -> End {
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return End { exit_code: exit.0, ..End::plain(Outcome::Exited) };
    }
    End::with_error(if fiber.told() { Outcome::Cancelled } else { otherwise }, error)
}

/// Copies arguments if they fit the function; `store_id` is that of its store, 0 if there is none
/// yet.
///
/// # Safety
///
/// Each value's union holds what its kind says.
pub unsafe fn copy_args(
    ty: &FuncType,
    args: &[wasmtime_val_t],
    store_id: u64,
) -> Result<Vec<wasmtime_val_t>, String> {
    let wanted = ty.params().len();
    if args.len() != wanted {
        return Err(format!("the function takes {wanted} arguments, not {}", args.len()));
    }
    for (i, (arg, ty)) in args.iter().zip(ty.params()).enumerate() {
        if kind_of(&ty) != Some(arg.kind) {
            return Err(format!("argument {i} must be of type {ty}, not {}", kind_name(arg.kind)));
        }
        if arg.kind == c::WASMTIME_FUNCREF {
            // SAFETY: the kind says which field is set; both begin with the store's number.
            let from = unsafe { bridge::store_of((&raw const arg.of.funcref).cast()) };
            if from != 0 && from != store_id {
                return Err(format!("argument {i} is a function of another store"));
            }
        }
    }
    let copy = |arg: &wasmtime_val_t| {
        let mut copy = MaybeUninit::uninit();
        // SAFETY: the kind is one of those that `kind_of` knows.
        unsafe {
            c::wasmtime_val_clone(arg, &mut copy);
            copy.assume_init()
        }
    };
    Ok(args.iter().map(copy).collect())
}

fn kind_of(ty: &ValType) -> Option<u8> {
    Some(match ty {
        ValType::I32 => c::WASMTIME_I32,
        ValType::I64 => c::WASMTIME_I64,
        ValType::F32 => c::WASMTIME_F32,
        ValType::F64 => c::WASMTIME_F64,
        ValType::V128 => c::WASMTIME_V128,
        ValType::Ref(r) => match r.heap_type().top() {
            HeapType::Func => c::WASMTIME_FUNCREF,
            HeapType::Extern => c::WASMTIME_EXTERNREF,
            HeapType::Any => c::WASMTIME_ANYREF,
            HeapType::Exn => c::WASMTIME_EXNREF,
            _ => return None,
        },
    })
}

fn kind_name(kind: u8) -> String {
    let names =
        ["i32", "i64", "f32", "f64", "v128", "funcref", "externref", "anyref", "exnref"];
    let unknown = || format!("kind {kind}, which there is none of");
    names.get(usize::from(kind)).map_or_else(unknown, |name| (*name).into())
}
