//! Types of functions, and calls of functions whose types are known.
//!
//! Wasmtime looks a function's type up in a registry at each checked call, behind a lock. A strand
//! remembers the signatures of the functions that were spawned in it, `copy_args` checks the arguments
//! against them once, and calls with nothing but numbers then go the unchecked way.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use wasmtime::{AsContext, Error, Func, FuncType, HeapType, RootScope, Store, Val, ValRaw, ValType};
use smallvec::SmallVec;
use wasmtime_c_api::{self as c, WasmtimeStoreData, wasmtime_val_t, wasmtime_val_union};

use super::bridge;
use super::end::Values;
use super::{local, locate};
use super::strand::Strand;

/// The parameters and results of a function.
pub struct Signature {
    params: Box<[ValType]>,
    results: Box<[ValType]>,
    plain: bool,
    /// It is a function of an instance, and not of the host.
    of_wasm: bool,
}

impl Signature {
    /// The signature of a type.
    pub fn of(ty: &FuncType) -> Signature {
        let (params, results): (Box<[_]>, Box<[_]>) = (ty.params().collect(), ty.results().collect());
        let plain = params.iter().chain(&results).all(|ty| !ty.is_ref());
        Signature { params, results, plain, of_wasm: false }
    }

    /// Has it nothing but numbers and vectors?
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Is it one that a guest may spawn: an i32, and an i32 or nothing in return?
    pub fn is_guest_entry(&self) -> bool {
        // One of the host's would have no calling instance.
        self.of_wasm && matches!(self.params[..], [ValType::I32]) && matches!(self.results[..], [] | [ValType::I32])
    }

    /// Copies arguments if they fit; `store_id` is that of the function's store, 0 if there is none
    /// yet.
    ///
    /// # Safety
    ///
    /// Each value's union holds what its kind says.
    pub unsafe fn copy_args(
        &self,
        args: &[wasmtime_val_t],
        store_id: u64,
    ) -> Result<Values, String> {
        let wanted = self.params.len();
        if args.len() != wanted {
            return Err(format!("the function takes {wanted} arguments, not {}", args.len()));
        }
        for (i, (arg, ty)) in args.iter().zip(&self.params).enumerate() {
            if kind_of(ty) != Some(arg.kind) {
                return Err(format!("argument {i} must be of type {ty}, not {}", kind_name(arg.kind)));
            }
            if arg.kind >= c::WASMTIME_FUNCREF {
                // SAFETY: a reference of whatever kind begins with its store's number, 0 for null.
                let from = unsafe { bridge::store_of(&raw const arg.of) };
                if from != 0 && from != store_id {
                    return Err(format!("argument {i} refers to something in another store"));
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

    /// Calls a function, the checked way.
    ///
    /// # Safety
    ///
    /// `copy_args` made the arguments.
    pub unsafe fn call(
        &self,
        store: &mut Store<WasmtimeStoreData>,
        func: Func,
        args: &[wasmtime_val_t],
    ) -> Result<Values, Error> {
        let mut scope = RootScope::new(store);
        // SAFETY: per contract.
        let args: Vec<Val> = args.iter().map(|arg| unsafe { arg.to_val(&mut scope) }).collect();
        let mut results = vec![Val::I32(0); self.results.len()];
        func.call(&mut scope, &args, &mut results)?;
        Ok(results.into_iter().map(|val| wasmtime_val_t::from_val(&mut scope, val)).collect())
    }

    /// Calls a function with nothing but numbers, the fast way.
    ///
    /// # Safety
    ///
    /// `copy_args` made the arguments; the function is the store's and has this signature, which is
    /// plain.
    pub unsafe fn call_plain(
        &self,
        store: &mut Store<WasmtimeStoreData>,
        func: Func,
        args: &[wasmtime_val_t],
    ) -> Result<Values, Error> {
        debug_assert!(self.plain);
        let room = args.len().max(self.results.len());
        let mut values = SmallVec::<[ValRaw; 4]>::from_elem(ValRaw::v128(0), room);
        for (value, arg) in values.iter_mut().zip(args) {
            // SAFETY: the kind says which field is set.
            *value = unsafe {
                match arg.kind {
                    c::WASMTIME_I32 => ValRaw::i32(arg.of.i32),
                    c::WASMTIME_I64 => ValRaw::i64(arg.of.i64),
                    c::WASMTIME_F32 => ValRaw::f32(arg.of.f32),
                    c::WASMTIME_F64 => ValRaw::f64(arg.of.f64),
                    _ => ValRaw::v128(u128::from_le_bytes(arg.of.v128)),
                }
            };
        }
        // SAFETY: per contract; the array is as long as arguments and results need.
        unsafe { func.call_unchecked(store, &raw mut values[..])? };
        let results = values.iter().zip(&self.results);
        Ok(results.map(|(value, ty)| from_plain(*value, ty)).collect())
    }
}

fn from_plain(value: ValRaw, ty: &ValType) -> wasmtime_val_t {
    let (kind, of) = match ty {
        ValType::I32 => (c::WASMTIME_I32, wasmtime_val_union { i32: value.get_i32() }),
        ValType::I64 => (c::WASMTIME_I64, wasmtime_val_union { i64: value.get_i64() }),
        ValType::F32 => (c::WASMTIME_F32, wasmtime_val_union { f32: value.get_f32() }),
        ValType::F64 => (c::WASMTIME_F64, wasmtime_val_union { f64: value.get_f64() }),
        _ => (c::WASMTIME_V128, wasmtime_val_union { v128: value.get_v128().to_le_bytes() }),
    };
    wasmtime_val_t { kind, of }
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

/// The signatures of the functions of a store that were ever spawned. None is forgotten: there are no more than
/// functions.
#[derive(Default)]
pub struct Signatures {
    /// By the address of a function's `VMFuncRef`, which stays where it is while the store lives.
    all: Mutex<HashMap<usize, Box<Signature>>>,
    /// The one that the strand's owner asked for last.
    last: Cell<Option<(usize, Known)>>,
}

/// A signature that its strand remembers. Whoever has one holds a reference to the strand as well.
#[derive(Clone, Copy)]
pub struct Known(NonNull<Signature>);

// SAFETY: signatures don't change, and are shared between threads behind the strand.
unsafe impl Send for Known {}

impl Deref for Known {
    type Target = Signature;

    fn deref(&self) -> &Signature {
        // SAFETY: the strand is there, and forgets none.
        unsafe { self.0.as_ref() }
    }
}

impl Strand {
    /// The signature of a function of this strand's store.
    pub fn signature(&self, func: Func) -> Known {
        // SAFETY: two words, as C's `wasmtime_func_t` has it: the store's number and the address of the
        // function's `VMFuncRef`.
        let [_, address] = unsafe { std::mem::transmute::<Func, [usize; 2]>(func) };
        // The owner asks for the same one again and again, and needs no lock for that.
        let owns = local::here().is_some_and(|local| local.owns(self));
        let last = owns.then_some(&self.signatures.last);
        if let Some((known, signature)) = last.and_then(Cell::get)
            && known == address
        {
            return signature;
        }
        let mut all = self.signatures.all.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = all.entry(address).or_insert_with(|| {
            // SAFETY: whoever spawns holds the handle, or is a fiber, so the store lives. `ty` reads the store's
            // number and its engine, neither of which ever changes, although a worker may be using the
            // store: a shared borrow beside its exclusive one, which Wasmtime gives no way around.
            let ty = func.ty(unsafe { self.store() }.as_context());
            let of_wasm = locate::is_of_wasm(address as *mut u8);
            Box::new(Signature { of_wasm, ..Signature::of(&ty) })
        });
        let signature = Known(NonNull::from(&**signature));
        if let Some(last) = last {
            last.set(Some((address, signature)));
        }
        signature
    }
}
