//! Switches that a guest asks for, and switches that are forced on it.

use crate::guests::{Guest, Store};
use crate::measure::{Duel, MARKS, Scale};
use crate::ours::{Fiber, Runtime};
use crate::rival::{Import, Rival};
use std::ffi::c_void;
use wasmtime::ValRaw;

/// Laps before the measured ones.
pub const WARM_UP: i32 = 16;

/// `yields` calls the host once a lap; `spins` calls nobody, but passes an epoch check every lap.
/// Both take the laps to warm up with, and the laps to measure.
pub const GUEST: &str = r#"(module
  (import "host" "yield" (func $yield))
  (import "host" "mark" (func $mark (param i32)))
  (func $call (param $laps i32)
    (loop $again
      (call $yield)
      (local.set $laps (i32.sub (local.get $laps) (i32.const 1)))
      (br_if $again (local.get $laps))))
  (func $spin (param $laps i32)
    (loop $again
      (local.set $laps (i32.sub (local.get $laps) (i32.const 1)))
      (br_if $again (local.get $laps))))
  (func (export "yields") (param $warm_up i32) (param $laps i32)
    (call $call (local.get $warm_up))
    (call $mark (i32.const 0))
    (call $call (local.get $laps))
    (call $mark (i32.const 1)))
  (func (export "spins") (param $warm_up i32) (param $laps i32)
    (call $spin (local.get $warm_up))
    (call $mark (i32.const 0))
    (call $spin (local.get $laps))
    (call $mark (i32.const 1))))"#;

/// Where BOP's fibers live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    /// A store and an instance per fiber.
    Own,
    /// All in one instance.
    One,
}

/// BOP's side: the same stores in every round, fresh fibers each time.
struct Ours {
    fibers: usize,
    workers: usize,
    stores: Vec<Store>,
    // Dropped after the stores, and the runtime last.
    _guest: Guest,
    rt: Runtime,
}

impl Ours {
    fn new(
        fibers: usize,
        stores: Stores,
        workers: usize,
        quantum: Option<u64>,
        export: &str,
        gives_way: bop::wasmtime_func_unchecked_callback_t,
    ) -> Ours {
        let rt = Runtime::new(workers, quantum);
        let guest = Guest::new(&rt, GUEST, gives_way);
        let count = if stores == Stores::Own { fibers } else { 1 };
        let stores = (0..count).map(|_| guest.store(&rt, export)).collect();
        Ours { fibers, workers, stores, _guest: guest, rt }
    }

    /// Nanoseconds that all fibers together take for their laps, on this thread and, with more
    /// workers, on others beside it.
    fn time(&self, laps: i32) -> f64 {
        MARKS.reset();
        let store = |i: usize| &self.stores[i % self.stores.len()];
        let spawned = (0..self.fibers).map(|i| store(i).spawn(&[WARM_UP, laps]));
        let fibers: Vec<Fiber> = spawned.collect();
        self.rt.run(self.workers);
        fibers.into_iter().for_each(Fiber::join);
        MARKS.elapsed()
    }
}

/// The import `yield` as a host written in C would have it.
extern "C" fn gives_way(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // Nothing here is cancelled, so there is no status to look at.
    let _ = bop::bop_yield();
    None
}

/// The import `yield` that only returns.
extern "C" fn returns(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    None
}

/// Nanoseconds per guest-to-host yield. With two workers it is the throughput of both together.
pub fn yields(scale: Scale, fibers: usize, stores: Stores, workers: usize) -> Duel {
    let laps = (scale.of(2_000_000) as usize / fibers) as i32;
    let total = fibers as f64 * f64::from(laps);
    let ours = Ours::new(fibers, stores, workers, None, "yields", gives_way);
    let mut rival = Rival::new(fibers, "yields", Import::Yields, false);
    let against = match workers {
        1 => "call_async, polled round robin",
        _ => "call_async, polled by as many threads",
    };
    Duel::new(move || ours.time(laps) / total)
        .against(against, move || rival.time(workers, laps).0 / total)
}

/// Nanoseconds per call of a host function that does nothing: what every yield pays as well.
pub fn calls(scale: Scale) -> Duel {
    let laps = scale.of(10_000_000) as i32;
    let ours = Ours::new(1, Stores::Own, 1, None, "yields", returns);
    let mut rival = Rival::new(1, "yields", Import::Returns, false);
    Duel::new(move || ours.time(laps) / f64::from(laps))
        .against("func_wrap, called by call_async", move || rival.time(1, laps).0 / f64::from(laps))
}

/// Nanoseconds per preemption: two endless computations that lose their turn at every epoch check.
pub fn preemptions(scale: Scale, stores: Stores) -> Duel {
    let laps = scale.of(1_000_000) as i32;
    let ours = Ours::new(2, stores, 1, Some(0), "spins", gives_way);
    let mut rival = Rival::new(2, "spins", Import::Yields, true);
    Duel::new(move || {
        let before = ours.rt.preemptions();
        let time = ours.time(laps);
        time / (ours.rt.preemptions() - before) as f64
    })
    .against("epoch yield of call_async", move || {
        let (time, switches) = rival.time(1, laps);
        time / switches as f64
    })
}
