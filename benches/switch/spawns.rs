//! Spawning something trivial and joining it, from inside a fiber.

use crate::guests::{Guest, Store};
use crate::measure::{Duel, Scale, now};
use crate::ours::Runtime;
use crate::rival::Tokio;
use std::ffi::c_void;
use std::ptr::null_mut;
use wasmtime::ValRaw;

pub const GUEST: &str = r#"(module (func (export "nothing")))"#;

/// A started runtime with one worker, so that a join is a switch to the new fiber and back.
struct Ours {
    store: Store,
    guest: Guest,
    // The last to be dropped.
    rt: Runtime,
}

extern "C" fn not_imported(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    None
}

extern "C" fn nothing(_: *mut c_void) -> i64 {
    0
}

impl Ours {
    fn new() -> Ours {
        let rt = Runtime::new(1, None);
        rt.start();
        let guest = Guest::new(&rt, GUEST, not_imported);
        let store = guest.store(&rt, "nothing");
        Ours { store, guest, rt }
    }

    /// Nanoseconds per operation, done over and over by one host fiber.
    fn time(&self, count: u32, operation: impl Fn(&Ours) + Sync) -> f64 {
        let mut time = 0;
        self.rt.inside_fiber(|| {
            let start = now();
            for _ in 0..count {
                operation(self);
            }
            time = now() - start;
        });
        time as f64 / f64::from(count)
    }
}

/// `bop_spawn` into a store that is there already.
pub fn one_store(scale: Scale) -> Duel {
    let (count, calls) = (scale.of(400_000), scale.of(200_000));
    let (ours, rival) = (Ours::new(), Tokio::new(GUEST, false));
    Duel::new(move || ours.time(count, |ours| ours.store.spawn(&[]).join()))
        .against("tokio task, call_async, reused store", move || rival.reused(calls))
}

/// `bop_spawn_instance`.
pub fn fresh_instance(scale: Scale) -> Duel {
    fresh(scale, "tokio task, call_async, fresh store", Tokio::new(GUEST, false))
}

/// `bop_spawn_instance` again, beside a rival that keeps stacks and instances in a pool.
pub fn fresh_instance_pooled(scale: Scale) -> Duel {
    fresh(scale, "the same with the pooling allocator", Tokio::new(GUEST, true))
}

fn fresh(scale: Scale, against: &'static str, rival: Tokio) -> Duel {
    let (count, calls) = (scale.of(100_000), scale.of(40_000));
    let ours = Ours::new();
    Duel::new(move || ours.time(count, |ours| ours.guest.spawn(&ours.rt, "nothing").join()))
        .against(against, move || rival.fresh(calls))
}

/// `bop_spawn_host`.
pub fn host_function(scale: Scale) -> Duel {
    let (count, threads) = (scale.of(400_000), scale.of(5_000));
    let ours = Ours::new();
    Duel::new(move || ours.time(count, |ours| ours.rt.spawn_host(nothing, null_mut()).join()))
        .against("std::thread", move || {
            let start = now();
            for _ in 0..threads {
                std::thread::spawn(|| {}).join().unwrap();
            }
            (now() - start) as f64 / f64::from(threads)
        })
}
