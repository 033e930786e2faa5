//! Many fibers of one instance that keeps a stack in its memory, as compiled guests do: spawned from
//! within, and woken in random order.

use crate::guests::{Guest, Store};
use crate::measure::{Duel, MARKS, Scale, now};
use crate::ours::{Fiber, Runtime};
use crate::rival::{Parked, Tokio};
use crate::spawns;
use crate::yields::WARM_UP;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};
use wasmtime::ValRaw;

/// An instance that is shared, of a runtime with one worker.
struct Ours {
    store: Store,
    _guest: Guest,
    // The last to be dropped.
    rt: Runtime,
}

// ---- spawn + join ----

/// `guest` spawns and joins by itself; `host` has the host do so, in its import, and is what that spawns,
/// with 0 laps. Both take the laps to warm up with, and the laps to measure.
const SPAWNER: &str = r#"(module
  (import "bop" "spawn" (func $spawn (param i32 i32) (result i64)))
  (import "bop" "join" (func $join (param i64 i32) (result i32)))
  (import "host" "yield" (func $yield))
  (import "host" "mark" (func $mark (param i32)))
  (memory (export "memory") 2)
  (global $sp (export "__stack_pointer") (mut i32) (i32.const 65536))
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $trivial)
  (func $trivial (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
  (func $guest (param $laps i32) (local $result i32)
    (global.set $sp (local.tee $result (i32.sub (global.get $sp) (i32.const 16))))
    (loop $again
      (if (call $join (call $spawn (i32.const 1) (local.get $laps)) (local.get $result))
        (then unreachable))
      (if (i32.ne (i32.load (local.get $result)) (i32.add (local.get $laps) (i32.const 1)))
        (then unreachable))
      (local.set $laps (i32.sub (local.get $laps) (i32.const 1)))
      (br_if $again (local.get $laps)))
    (global.set $sp (i32.add (local.get $result) (i32.const 16))))
  (func $host (param $laps i32)
    (loop $again
      (call $yield)
      (local.set $laps (i32.sub (local.get $laps) (i32.const 1)))
      (br_if $again (local.get $laps))))
  (func (export "guest") (param $warm_up i32) (param $laps i32)
    (call $guest (local.get $warm_up))
    (call $mark (i32.const 0))
    (call $guest (local.get $laps))
    (call $mark (i32.const 1)))
  (func (export "host") (param $warm_up i32) (param $laps i32)
    (if (i32.eqz (local.get $laps)) (then return))
    (call $host (local.get $warm_up))
    (call $mark (i32.const 0))
    (call $host (local.get $laps))
    (call $mark (i32.const 1))))"#;

/// Where the import of `host` spawns. One benchmark runs at a time, so one will do.
static STORE: AtomicPtr<Store> = AtomicPtr::new(null_mut());

extern "C" fn spawns_and_joins(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: set by who waits for this fiber's end, and lives until then.
    let store = unsafe { &*STORE.load(Relaxed) };
    store.spawn(&[0, 0]).join();
    None
}

/// `bop.spawn` and `bop.join`, by a guest. Its rival's guest is the smallest there is, without a memory.
pub fn from_the_guest(scale: Scale) -> Duel {
    spawner(scale, "guest")
}

/// `bop_spawn` and `bop_fiber_join`, in a host function that a fiber of the same store calls.
pub fn from_a_host_function(scale: Scale) -> Duel {
    spawner(scale, "host")
}

fn spawner(scale: Scale, export: &'static str) -> Duel {
    let (laps, calls) = (scale.of(400_000) as i32, scale.of(40_000));
    let rt = Runtime::new(1, None);
    let guest = Guest::new(&rt, SPAWNER, spawns_and_joins);
    let store = guest.store(&rt, export).share(None);
    let ours = Ours { store, _guest: guest, rt };
    let rival = Tokio::new(spawns::GUEST, false);
    Duel::new(move || ours.time_spawns(laps) / f64::from(laps))
        .against("tokio task, call_async, fresh store", move || rival.fresh(calls))
}

impl Ours {
    fn time_spawns(&self, laps: i32) -> f64 {
        STORE.store((&raw const self.store).cast_mut(), Relaxed);
        MARKS.reset();
        let fiber = self.store.spawn(&[WARM_UP, laps]);
        self.rt.run(1);
        fiber.join();
        MARKS.elapsed()
    }
}

// ---- wake + park ----

/// `parks` keeps its key in a local and a note in its frame in memory. It shows the host the note, is
/// suspended there, and notes what it is told then; 0 tells it to return the note.
pub const PARKER: &str = r#"(module
  (import "host" "park" (func $park (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (global $sp (export "__stack_pointer") (mut i32) (i32.const 65536))
  (func (export "parks") (param $me i32) (result i32)
    (local $frame i32) (local $key i32) (local $told i32)
    (global.set $sp (local.tee $frame (i32.sub (global.get $sp) (i32.const 64))))
    (local.set $key (i32.mul (local.get $me) (i32.const 0x9e3779b1)))
    (i32.store (local.get $frame) (local.get $key))
    (loop $again
      (local.set $told (call $park (local.get $me) (i32.load (local.get $frame))))
      (if (local.get $told) (then
        (i32.store (local.get $frame) (i32.xor (local.get $key) (local.get $told)))
        (br $again))))
    (global.set $sp (i32.add (local.get $frame) (i32.const 64)))
    (i32.load (local.get $frame))))"#;

/// The lap in which those that are parked are woken; 0 before the first, [`END`] when they shall end.
pub static LAP: AtomicU32 = AtomicU32::new(0);
pub const END: u32 = u32::MAX;
/// Calls of the guests' import so far. Only one guest runs at a time.
static PARKS: AtomicU32 = AtomicU32::new(0);

/// What a guest is told in a lap.
pub fn told(lap: u32, me: u32) -> u32 {
    match lap {
        0 | END => 0,
        _ => (me ^ lap.rotate_left(16)).wrapping_mul(0x85eb_ca6b) | 1,
    }
}

/// What is in a guest's frame then.
pub fn noted(lap: u32, me: u32) -> u32 {
    me.wrapping_mul(0x9e37_79b1) ^ told(lap, me)
}

/// The guests' import `park` before it waits: is the frame as it should be?
pub fn comes(me: u32, noted_by_it: u32) {
    assert_eq!(noted_by_it, noted(LAP.load(Relaxed), me), "guest {me} has lost its frame");
    PARKS.store(PARKS.load(Relaxed) + 1, Relaxed);
}

extern "C" fn parks(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    args: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: the function's type has two parameters and a result, all i32.
    unsafe {
        let me = (*args).get_u32();
        comes(me, (*args.add(1)).get_u32());
        let _ = bop::bop_park();
        *args = ValRaw::u32(told(LAP.load(Relaxed), me));
    }
    None
}

/// Permutations of `0..count`, one per lap, the same in every run.
fn orders(laps: u32, count: u32) -> Vec<Vec<u32>> {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let order = |_| {
        let mut order: Vec<u32> = (0..count).collect();
        (1..order.len()).rev().for_each(|last| order.swap(last, below(last + 1)));
        order
    };
    (0..laps).map(order).collect()
}

/// The largest number of suspended calls that the process may have mappings for.
const MOST_RIVALS: u32 = 10_000;
/// 100,000 of the usual size would not fit into the memory of a 32-bit guest.
const SHADOW_STACK: u32 = 16 << 10;
const NATIVE_STACK: usize = 128 << 10;

/// Nanoseconds per wake-up, from `bop_unpark` until the fiber is parked again: a host fiber wakes all,
/// in random order, and lets them run.
pub fn wakes(scale: Scale, count: u32) -> Duel {
    let laps = (scale.of(1_000_000) / count).max(1);
    let rivals = count.min(MOST_RIVALS);
    let (orders, orders_of_rivals) = (orders(laps, count), orders(laps, rivals));
    let rt = Runtime::new(1, None);
    rt.start();
    let guest = Guest::with(&rt, PARKER, ("park", 2, 1, parks));
    let store = guest.store(&rt, "parks").share(Some(SHADOW_STACK)).native_stacks(NATIVE_STACK);
    let ours = Ours { store, _guest: guest, rt };
    let mut parked = Parked::new(rivals);
    Duel::new(move || {
        start_round();
        ours.time_wakes(&orders) / (f64::from(laps) * f64::from(count))
    })
    .against("10,000 calls of call_async, own stores", move || {
        start_round();
        parked.time(&orders_of_rivals) / (f64::from(laps) * f64::from(rivals))
    })
}

fn start_round() {
    LAP.store(0, Relaxed);
    PARKS.store(0, Relaxed);
}

/// Lets the guests run until so many calls of their import were made. On a host fiber.
fn wait_for(parks: u32) {
    while PARKS.load(Relaxed) < parks {
        let _ = bop::bop_yield();
    }
}

impl Ours {
    fn time_wakes(&self, orders: &[Vec<u32>]) -> f64 {
        let count = orders[0].len() as u32;
        let spawned = (0..count).map(|me| self.store.spawn(&[me as i32]));
        let fibers: Vec<Fiber> = spawned.collect();
        let mut time = 0;
        self.rt.inside_fiber(|| {
            wait_for(count);
            for (lap, order) in (1..).zip(orders) {
                LAP.store(lap, Relaxed);
                let start = now();
                order.iter().for_each(|&me| fibers[me as usize].unpark());
                wait_for((lap + 1) * count);
                time += now() - start;
            }
            LAP.store(END, Relaxed);
            fibers.iter().for_each(Fiber::unpark);
        });
        for (me, fiber) in (0..).zip(fibers) {
            assert_eq!(fiber.result() as u32, noted(orders.len() as u32, me), "fiber {me}");
        }
        time as f64
    }
}
