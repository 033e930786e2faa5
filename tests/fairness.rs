//! Endless loops on every worker, and bystanders that keep making progress. Judged by counts, not by times.
#![allow(missing_docs)]

mod support;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use support::guest::{Guest, Host, Shared, call_back, i32_args};
use support::{Fiber, Options, Outcome, Runtime, fiber};

const WORKERS: usize = 2;
/// Turns that each bystander must get.
const ROUNDS: i32 = 200;
/// Only a bystander that starves takes so long.
const LIMIT: Duration = Duration::from_secs(120);

/// `spin` counts its laps at an address, for ever. `bystand` gives up its turn `rounds` times, and so depends on
/// getting another; `greedy` never gives one up: it counts to a number that takes many slices. `through`
/// reaches `spin` by way of a host function.
const GUEST: &str = r#"(module
  (import "host" "yield" (func $yield))
  (import "host" "back" (func $back (param i32)))
  (memory (export "memory") 1)
  (func $spin (export "spin") (param $at i32) (result i32)
    (loop $again
      (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (i64.const 1)))
      (br $again))
    (i32.const 0))
  (func $through (export "through") (param $at i32) (result i32)
    (call $back (local.get $at))
    (i32.const 0))
  (func $bystand (export "bystand") (param $rounds i32) (result i32)
    (local $done i32)
    (loop $again
      (call $yield)
      (local.set $done (i32.add (local.get $done) (i32.const 1)))
      (br_if $again (i32.lt_s (local.get $done) (local.get $rounds))))
    (local.get $done))
  (func $greedy (export "greedy") (param $laps i32) (result i32)
    (local $done i32)
    (loop $again
      (local.set $done (i32.add (local.get $done) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $done) (local.get $laps))))
    (local.get $done)))"#;

extern "C" fn give_way(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *const bop::wasmtime_val_t,
    _: usize,
    _: *mut bop::wasmtime_val_t,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    fiber::yield_now();
    None
}

extern "C" fn back(
    _: *mut c_void,
    caller: *mut bop::wasmtime_caller_t<'_>,
    args: *const bop::wasmtime_val_t,
    nargs: usize,
    _: *mut bop::wasmtime_val_t,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: everything is as Wasmtime gave it.
    let spun = unsafe { call_back(caller, "spin", &i32_args(args, nargs)) };
    // What stopped it stops the caller too.
    let trap = spun.expect_err("an endless loop returned");
    // SAFETY: the message is copied.
    Some(unsafe { bop::wasmtime_trap_new(trap.message.as_ptr(), trap.message.len()) })
}

const HOSTS: [Host; 2] = [
    Host {
        name: "yield",
        params: 0,
        results: 0,
        call: give_way,
    },
    Host {
        name: "back",
        params: 1,
        results: 0,
        call: back,
    },
];

/// The laps that a spinner counted at `at`.
fn laps(store: &Shared, at: usize) -> u64 {
    // SAFETY: the memory is live while the store has fibers, it never moves, and a torn read can't happen to an
    // aligned word; volatile, since the guest writes it meanwhile.
    unsafe { store.memory.add(at).cast::<u64>().read_volatile() }
}

fn run(quantum_ns: u64) {
    let rt = Runtime::start(WORKERS, quantum_ns, 256 << 10, null_mut());
    let guest = Guest::new(rt.engine(), GUEST, &HOSTS, null_mut());
    let named = |name: &str| Options::new(name, 0);
    // Two spinners in stores of their own for each worker, one that spins in Wasm called from the host, and
    // one that shares a store with bystanders.
    let mut spinners: Vec<(Shared, Fiber)> = Vec::new();
    for _ in 0..2 * WORKERS {
        let store = guest.store(&rt);
        let fiber = store.spawn("spin", &[64], &named("spinner"));
        spinners.push((store, fiber));
    }
    let store = guest.store(&rt);
    let fiber = store.spawn("through", &[64], &named("nested spinner"));
    spinners.push((store, fiber));
    let store = guest.store(&rt);
    let fiber = store.spawn("spin", &[64], &named("spinner with company"));
    let mut bystanders: Vec<(i32, Fiber)> = Vec::new();
    for _ in 0..2 {
        bystanders.push((
            ROUNDS,
            store.spawn("bystand", &[ROUNDS], &named("bystander with a spinner")),
        ));
    }
    spinners.push((store, fiber));
    for _ in 0..2 * WORKERS {
        bystanders.push((
            ROUNDS,
            guest.spawn(&rt, "bystand", &[ROUNDS], &named("bystander")),
        ));
    }
    bystanders.push((
        20_000_000,
        guest.spawn(&rt, "greedy", &[20_000_000], &named("greedy bystander")),
    ));
    // Host fibers wait for their turns like anybody else.
    let turns = std::sync::Arc::new(AtomicU32::new(0));
    let counted = turns.clone();
    let host = rt.spawn_host("host bystander", 0, move || {
        for _ in 0..ROUNDS {
            fiber::yield_now();
            counted.fetch_add(1, Relaxed);
        }
        0
    });

    for (rounds, fiber) in &bystanders {
        assert_eq!(
            fiber.join_value(LIMIT),
            i64::from(*rounds),
            "{}",
            fiber.name()
        );
    }
    assert_eq!(host.join_value(LIMIT), 0);
    assert_eq!(turns.load(Relaxed), ROUNDS as u32);

    // All that happened beside spinners that never ended, and that had turns as well.
    let counts: Vec<u64> = spinners.iter().map(|(store, _)| laps(store, 64)).collect();
    let stats = rt.stats();
    println!(
        "quantum {quantum_ns} ns: laps {counts:?}, {} preemptions, {} steals",
        stats.preemptions, stats.steals
    );
    assert!(
        spinners.iter().all(|(_, fiber)| !fiber.finished()),
        "a spinner ended"
    );
    assert!(
        counts.iter().all(|&count| count > 0),
        "a spinner never had a turn: {counts:?}"
    );
    // Each bystander's turn needs a preemption whenever all workers spin: once in a while is not enough.
    assert!(
        stats.preemptions > ROUNDS as u64,
        "{} preemptions",
        stats.preemptions
    );
    // Alike spinners get alike shares; the factor is for a busy machine that holds one worker back.
    let alike = &counts[..2 * WORKERS];
    let (least, most) = (alike.iter().min().unwrap(), alike.iter().max().unwrap());
    assert!(*most < least * 50, "unfair: {counts:?}");

    for (_, fiber) in &spinners {
        assert_eq!(fiber.cancel(), 0);
    }
    for (_, fiber) in &spinners {
        assert_eq!(
            fiber.join_within(LIMIT),
            Ok(Outcome::Cancelled),
            "{}",
            fiber.name()
        );
    }
}

#[test]
fn bystanders_progress_beside_spinners() {
    run(1_000_000);
}

#[test]
fn bystanders_progress_with_the_shortest_quantum() {
    run(50_000);
}

/// A store is one strand, however many fibers it has: it gets a store's share of the worker, and not one for
/// each fiber.
#[test]
fn a_store_with_many_fibers_gets_no_more_than_one_with_one() {
    const MANY: usize = 1_000;
    let rt = Runtime::start(1, 50_000, 256 << 10, null_mut());
    let guest = Guest::new(rt.engine(), GUEST, &HOSTS, null_mut());
    let stores = [guest.store(&rt), guest.store(&rt)];
    let named = |name: &str| Options::new(name, 0);
    let mut fibers: Vec<Fiber> =
        (0..MANY).map(|_| stores[0].spawn("spin", &[64], &named("one of many"))).collect();
    fibers.push(stores[1].spawn("spin", &[64], &named("alone")));
    // From here on both are there.
    let start = std::time::Instant::now();
    let before = [laps(&stores[0], 64), laps(&stores[1], 64)];
    let slices = rt.stats().preemptions;
    while rt.stats().preemptions < slices + 600 {
        assert!(start.elapsed() < LIMIT, "no preemptions");
        std::thread::sleep(Duration::from_millis(1));
    }
    let shares = [laps(&stores[0], 64) - before[0], laps(&stores[1], 64) - before[1]];
    println!("laps of the store with {MANY} fibers and of the one with one: {shares:?}");
    // One for each fiber would be a thousand to one; the factor is for a busy machine.
    assert!(shares[0] < 4 * shares[1] && shares[1] < 4 * shares[0], "unfair: {shares:?}");
    fibers.iter().for_each(|fiber| assert_eq!(fiber.cancel(), 0));
    for fiber in &fibers {
        assert_eq!(fiber.join_within(LIMIT), Ok(Outcome::Cancelled));
    }
}
