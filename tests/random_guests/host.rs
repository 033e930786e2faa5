//! The host functions of the random programs. What they return depends on their arguments alone; whether they
//! suspend besides, on the world that they are in.

use super::outcome::Failure;
use crate::support::{fiber, thread_id};
use bop::{WASMTIME_F32 as F32, WASMTIME_F64 as F64, WASMTIME_I32 as I32, WASMTIME_I64 as I64};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a [`World`] counts.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// `mix` and `wave`, which only compute.
    Computed,
    Yielded,
    Slept,
    /// `back` called the guest and it returned, or trapped: the trap was dropped, or passed on.
    CalledBack,
    Caught,
    PassedOn,
    Failed,
    /// A suspension that came back on another thread.
    Moved,
}

impl Count {
    pub const ALL: [Count; 8] = [
        Count::Computed,
        Count::Yielded,
        Count::Slept,
        Count::CalledBack,
        Count::Caught,
        Count::PassedOn,
        Count::Failed,
        Count::Moved,
    ];
}

/// What the host functions share: one world for plain threads, one for fibers.
pub struct World {
    /// On a plain thread nothing of BOP is called.
    on_fibers: bool,
    counts: [AtomicU64; Count::ALL.len()],
}

impl World {
    pub fn new(on_fibers: bool) -> World {
        World { on_fibers, counts: Default::default() }
    }

    fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Relaxed);
    }

    pub fn counted(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Relaxed)
    }

    /// Suspends the fiber, if this is one: for some time if it isn't zero.
    fn suspend(&self, time: Duration) {
        self.count(if time.is_zero() { Count::Yielded } else { Count::Slept });
        if self.on_fibers {
            let before = thread_id();
            let status = if time.is_zero() { fiber::yield_now() } else { fiber::sleep(time) };
            assert_eq!(status, 0, "nobody cancels these fibers");
            if thread_id() != before {
                self.count(Count::Moved);
            }
        }
    }
}

/// The bits of a host function's result, if it has one.
type Answer = Result<u64, Box<bop::wasm_trap_t>>;
/// What it does with the bits of its arguments.
type Body = fn(&World, &mut bop::wasmtime_caller_t<'_>, &[u64]) -> Answer;

/// Name, parameters, result and C function.
pub struct Host {
    pub name: &'static str,
    pub params: &'static [u8],
    pub result: Option<u8>,
    pub call: bop::wasmtime_func_callback_t,
}

macro_rules! host {
    ($name:literal, $body:ident, [$($param:ident),*], $result:expr) => {{
        extern "C" fn call(
            env: *mut c_void,
            caller: *mut bop::wasmtime_caller_t<'_>,
            args: *const bop::wasmtime_val_t,
            count: usize,
            results: *mut bop::wasmtime_val_t,
            _: usize,
        ) -> Option<Box<bop::wasm_trap_t>> {
            // SAFETY: `env` is the world, which outlives the stores; the rest is as Wasmtime gave it, and there is
            // a place for the result if there is a result.
            unsafe {
                let args: Vec<u64> = (0..count).map(|at| bits(&*args.add(at))).collect();
                match $body(&*env.cast::<World>(), &mut *caller, &args) {
                    Err(trap) => return Some(trap),
                    Ok(bits) => {
                        if let Some(kind) = $result {
                            results.write(value(kind, bits));
                        }
                    }
                }
            }
            None
        }
        const _: Body = $body;
        Host { name: $name, params: &[$($param),*], result: $result, call }
    }};
}

pub const HOSTS: [Host; 6] = [
    host!("mix", mix, [I32, I64, F32, F64], Some(I64)),
    host!("wave", wave, [F64, F32], Some(F64)),
    host!("yield", give_way, [I32], Some(I32)),
    host!("sleep", sleep, [I32], Some(F32)),
    host!("back", back, [I32, I32, I64], Some(I64)),
    host!("fail", fail, [I32], None),
];

fn fold(all: u64, bits: u64) -> u64 {
    (all.rotate_left(19) ^ bits).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn mix(world: &World, _: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    world.count(Count::Computed);
    Ok(args.iter().fold(1, |all, &bits| fold(all, bits)))
}

fn wave(world: &World, _: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    world.count(Count::Computed);
    Ok((f64::from_bits(args[0]) * 0.625 - f64::from(f32::from_bits(args[1] as u32))).to_bits())
}

fn give_way(world: &World, _: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    world.suspend(Duration::ZERO);
    Ok(fold(2, args[0]) >> 32)
}

/// For up to 32 us.
fn sleep(world: &World, _: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    let hash = fold(3, args[0]);
    world.suspend(Duration::from_micros(1 + (hash >> 40) % 32));
    Ok(((hash >> 20) as i32 as f32).to_bits().into())
}

/// Calls the guest again; on some of the ways, suspends before and after.
fn back(world: &World, caller: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    let hash = args.iter().fold(4, |all, &bits| fold(all, bits));
    if hash >> 63 == 0 {
        world.suspend(Duration::ZERO);
    }
    let result = nested(caller, args);
    if hash >> 62 & 1 == 0 {
        world.suspend(Duration::ZERO);
    }
    match result {
        Ok(bits) => {
            world.count(Count::CalledBack);
            Ok(fold(hash, bits))
        }
        Err(failure) if hash >> 61 & 1 == 0 => {
            world.count(Count::PassedOn);
            Err(failure.into_trap())
        }
        Err(failure) => {
            world.count(Count::Caught);
            Ok(fold(hash, failure.read().hash()))
        }
    }
}

fn nested(caller: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Result<u64, Failure> {
    const NAME: &str = "nested";
    let args = [value(I32, args[0]), value(I32, args[1]), value(I64, args[2])];
    let mut item = MaybeUninit::uninit();
    // SAFETY: the item is a function if it was found.
    let func = unsafe {
        assert!(bop::wasmtime_caller_export_get(caller, NAME.as_ptr(), NAME.len(), &mut item));
        item.assume_init().of.func
    };
    invoke(bop::wasmtime_caller_context(caller), &func, &args)
}

/// Calls a function that has one result.
pub fn invoke(
    context: bop::WasmtimeStoreContextMut<'_>,
    func: &wasmtime::Func,
    args: &[bop::wasmtime_val_t],
) -> Result<u64, Failure> {
    let (mut result, mut trap) = (MaybeUninit::uninit(), null_mut());
    // SAFETY: every pointer is live, the result is written when there is neither error nor trap; a trap is the
    // caller's, and came from a box.
    unsafe {
        let error = bop::wasmtime_func_call(context, func, args.as_ptr(), args.len(), &mut result, 1, &mut trap);
        match error {
            Some(error) => Err(Failure::Error(error)),
            None if !trap.is_null() => Err(Failure::Trap(Box::from_raw(trap))),
            None => Ok(bits(&result.assume_init())),
        }
    }
}

/// Always a trap: with a message of its own, or with a code that the guests can't cause themselves.
fn fail(world: &World, _: &mut bop::wasmtime_caller_t<'_>, args: &[u64]) -> Answer {
    world.count(Count::Failed);
    let message = format!("the host refuses {}", args[0]);
    // SAFETY: the message is copied, and 13 is a code.
    Err(unsafe {
        match fold(5, args[0]) >> 63 {
            0 => bop::wasmtime_trap_new(message.as_ptr(), message.len()),
            _ => bop::wasmtime_trap_new_code(13),
        }
    })
}

/// The bits of a number; all NaNs have the same.
pub fn bits(value: &bop::wasmtime_val_t) -> u64 {
    // SAFETY: the kind says which field is set.
    unsafe {
        match value.kind {
            I32 => u64::from(value.of.i32 as u32),
            I64 => value.of.i64 as u64,
            F32 if f32::from_bits(value.of.f32).is_nan() => f32::NAN.to_bits().into(),
            F32 => value.of.f32.into(),
            F64 if f64::from_bits(value.of.f64).is_nan() => f64::NAN.to_bits(),
            F64 => value.of.f64,
            kind => panic!("a value of kind {kind}"),
        }
    }
}

pub fn value(kind: u8, bits: u64) -> bop::wasmtime_val_t {
    let of = match kind {
        I32 => bop::wasmtime_val_union { i32: bits as i32 },
        I64 => bop::wasmtime_val_union { i64: bits as i64 },
        F32 => bop::wasmtime_val_union { f32: bits as u32 },
        F64 => bop::wasmtime_val_union { f64: bits },
        kind => panic!("a value of kind {kind}"),
    };
    bop::wasmtime_val_t { kind, of }
}
