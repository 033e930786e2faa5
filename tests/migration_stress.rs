//! Thousands of fibers that trap, yield, sleep, call back and get cancelled, moved between workers meanwhile.
//!
//! Each fiber's outcome, value and backtrace is checked against its plan (`support/stress.rs`). Some have a
//! store of their own, some share one with others. `BOP_SEED` repeats a seed, which every run prints;
//! `BOP_STRESS` is the number of seconds, 4 unless told.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::guest::Guest;
use support::stress::{End, Plan, step_value, text};
use support::world::{HOSTS, LIMIT, World};
use support::{Fiber, Options, Outcome, Rng, Runtime, Trap};

const WORKERS: usize = 3;
const STACK: usize = 256 << 10;
const OWN: u32 = 200;
const STORES: u32 = 4;
const PER_STORE: u32 = 60;

/// Spawns a wave of fibers with ids from `first`, cancels whom the plans name, joins all. Tells the ends.
fn wave(world: &World, guest: &Guest, first: u32, ends: &mut BTreeMap<(End, bool), u32>) -> u32 {
    let mut rng = Rng::new(world.seed ^ u64::from(first));
    let mut fibers = Vec::new();
    let mut spawn = |id: u32, how: &dyn Fn(&[i32], &Options) -> Fiber| {
        let plan = Plan::new(world.seed, id);
        let fiber = how(&plan.args(), &Options::new(&format!("stress {id}"), 0));
        // Some before they can have begun.
        if plan.cancel && rng.below(4) == 0 {
            fiber.cancel();
        }
        fibers.push((plan, fiber));
    };
    (first..first + OWN).for_each(|id| {
        spawn(id, &|args, options| {
            guest.spawn(&world.rt, "run", args, options)
        })
    });
    let mut id = first + OWN;
    for _ in 0..STORES {
        let store = guest.store(&world.rt);
        for _ in 0..PER_STORE {
            spawn(id, &|args, options| store.spawn("run", args, options));
            id += 1;
        }
        // The store must live until its last fiber has ended, whoever holds a handle.
        drop(store);
    }
    for at in (1..fibers.len()).rev() {
        fibers.swap(at, rng.below(at as u32 + 1) as usize);
    }
    for (plan, fiber) in fibers.iter().filter(|(plan, _)| plan.cancel) {
        if rng.below(8) == 0 {
            std::thread::sleep(Duration::from_micros(rng.below(400).into()));
        }
        let status = fiber.cancel();
        assert!(
            status == 0 || status == 3,
            "cancel of {plan:?} gave {status}"
        );
    }
    for (plan, fiber) in &fibers {
        let outcome = match fiber.join_within(LIMIT) {
            Ok(outcome) => outcome,
            Err(status) => panic!("{plan:?} does not end: status {status}"),
        };
        let value = (outcome == Outcome::Returned).then(|| fiber.result_i64());
        let trap = fiber.take_trap();
        if let Err(text) = plan.check(outcome, value, trap.as_ref()) {
            world.problem(text);
        }
        assert_eq!(fiber.cancel(), 3, "cancel of a finished fiber must say so");
        *ends
            .entry((plan.end, outcome == Outcome::Cancelled))
            .or_default() += 1;
    }
    id
}

fn seed() -> u64 {
    let given = std::env::var("BOP_SEED")
        .ok()
        .map(|text| text.parse().expect("BOP_SEED is a number"));
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000;
    let seed = given.unwrap_or_else(clock);
    println!("BOP_SEED={seed}");
    seed
}

fn storm(quantum_ns: u64) {
    let seconds = std::env::var("BOP_STRESS")
        .map_or(4.0, |text| text.parse().expect("BOP_STRESS is a number"));
    let seed = seed();
    let world = Box::new(World {
        rt: Runtime::start(WORKERS, quantum_ns, STACK, std::ptr::null_mut()),
        seed,
        steps: AtomicU64::new(0),
        moves: AtomicU64::new(0),
        problems: Mutex::default(),
    });
    let env = std::ptr::from_ref(&*world).cast_mut().cast();
    let guest = Guest::new(world.rt.engine(), &text(), &HOSTS, env);
    let (start, mut id, mut ends) = (Instant::now(), 1, BTreeMap::new());
    // Half of the time each: there are two storms.
    while id < 2_000 || start.elapsed().as_secs_f64() < seconds / 2.0 {
        id = wave(&world, &guest, id, &mut ends);
        let problems = world.problems.lock().unwrap();
        assert!(
            problems.is_empty(),
            "seed {seed}: {} problems, first: {}",
            problems.len(),
            problems[0]
        );
    }
    let stats = world.rt.stats();
    println!(
        "seed {seed}, quantum {quantum_ns} ns: {} fibers in {:.1} s, {} steps, {} moved, {} preemptions, {} steals",
        id - 1,
        start.elapsed().as_secs_f64(),
        world.steps.load(Relaxed),
        world.moves.load(Relaxed),
        stats.preemptions,
        stats.steals
    );
    for end in End::ALL {
        let count = |cancelled| ends.get(&(end, cancelled)).copied().unwrap_or(0);
        println!(
            "  {:12} {:>7} {:>7} cancelled",
            format!("{end:?}"),
            count(false),
            count(true)
        );
        assert!(count(end.endless()) > 0, "no fiber came to {end:?}");
    }
    assert!(world.moves.load(Relaxed) > 100, "the fibers hardly move");
    assert!(stats.preemptions > 100, "the fibers are hardly preempted");
    // A cancelled step leaves its child behind; that one ends by itself.
    let patience = Instant::now();
    while world.rt.stats().live > 0 {
        assert!(
            patience.elapsed() < LIMIT,
            "{} fibers left over",
            world.rt.stats().live
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn storm_with_a_switch_at_every_epoch_check() {
    storm(0);
}

#[test]
fn storm_with_a_quantum() {
    storm(50_000);
}

/// Plain Wasmtime gives what the plans say, so what the storms check is Wasmtime's behaviour and not BOP's idea of it.
#[test]
fn stock_wasmtime_agrees_with_the_plans() {
    let engine = wasmtime::Engine::default();
    let module = wasmtime::Module::new(&engine, text()).unwrap();
    let mut linker = wasmtime::Linker::<()>::new(&engine);
    linker
        .func_wrap("host", "step", |id: u32, depth: u32| step_value(id, depth))
        .unwrap();
    linker.func_wrap("host", "wait", |_: u32| ()).unwrap();
    let fail = |id: u32| -> wasmtime::Result<()> { wasmtime::bail!("host error of fiber {id}") };
    linker.func_wrap("host", "fail", fail).unwrap();
    for plan in (1..2_000)
        .map(|id| Plan::new(11, id))
        .filter(|plan| !plan.end.endless())
    {
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = linker.instantiate(&mut store, &module).unwrap();
        let run = instance
            .get_typed_func::<(i32, i32, i32, i32), i32>(&mut store, "run")
            .unwrap();
        match run.call(&mut store, plan.args().into()) {
            Ok(value) => plan.check(Outcome::Returned, Some(value.into()), None),
            Err(error) => {
                let trace = error
                    .downcast_ref::<wasmtime::WasmBacktrace>()
                    .expect("a backtrace");
                let frames = trace
                    .frames()
                    .iter()
                    .map(|frame| frame.func_name().unwrap_or("?").to_string())
                    .collect();
                let code = error
                    .downcast_ref::<wasmtime::Trap>()
                    .map(|&trap| trap as u8);
                plan.check(
                    Outcome::Trapped,
                    None,
                    Some(&Trap {
                        message: format!("{error:?}"),
                        code,
                        frames,
                    }),
                )
            }
        }
        .unwrap();
    }
}

/// The oracle must refuse what it is there to refuse.
#[test]
fn the_oracle_can_fail() {
    let plan = |want: End| {
        let plans = (1..).map(|id| Plan::new(7, id));
        plans
            .into_iter()
            .find(|plan| plan.end == want && plan.depth > 3 && plan.cancel == want.endless())
            .unwrap()
    };
    let bounds = plan(End::Bounds);
    let trap = Trap {
        message: String::new(),
        code: Some(1),
        frames: bounds.all_frames(),
    };
    assert!(bounds.check(Outcome::Trapped, None, Some(&trap)).is_ok());
    assert!(
        bounds.check(Outcome::Cancelled, None, Some(&trap)).is_err(),
        "nobody cancelled it"
    );
    assert!(bounds.check(Outcome::Trapped, None, None).is_err());
    assert!(
        bounds
            .check(
                Outcome::Trapped,
                None,
                Some(&Trap {
                    code: Some(9),
                    ..trap.clone()
                })
            )
            .is_err()
    );
    for at in 0..trap.frames.len() {
        let mut short = trap.clone();
        short.frames.remove(at);
        let mut other = trap.clone();
        other.frames[at] = if other.frames[at] == "left" {
            "right".into()
        } else {
            "left".into()
        };
        for wrong in [short, other] {
            let same = wrong.frames == trap.frames;
            assert!(
                same || bounds.check(Outcome::Trapped, None, Some(&wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
    let returns = plan(End::Return);
    assert!(
        returns
            .check(Outcome::Returned, Some(returns.value().into()), None)
            .is_ok()
    );
    assert!(
        returns
            .check(
                Outcome::Returned,
                Some(i64::from(returns.value()) + 1),
                None
            )
            .is_err()
    );
    let spin = plan(End::Spin);
    let stopped = |frames: &[String]| {
        spin.check(
            Outcome::Cancelled,
            None,
            Some(&Trap {
                frames: frames.to_vec(),
                ..Trap::default()
            }),
        )
        .is_ok()
    };
    let frames = spin.all_frames();
    assert!(stopped(&frames) && stopped(&frames[2..]) && stopped(&[]));
    assert!(
        !stopped(&frames[..frames.len() - 1]),
        "the frame of `run` is missing"
    );
    assert!(
        !stopped(&[vec!["spin".into()], frames[2..].to_vec()].concat()),
        "a level is missing"
    );
    assert!(spin.check(Outcome::Returned, Some(0), None).is_err());

    // Cut at Wasmtime's limit on the way through the descent.
    let mut exhaust = plan(End::Exhaust);
    exhaust.cancel = true;
    let stopped = |frames: &[String]| {
        let trap = Trap { frames: frames.to_vec(), ..Trap::default() };
        exhaust.check(Outcome::Cancelled, None, Some(&trap)).is_ok()
    };
    let way = exhaust.frames(exhaust.depth);
    let cut = |deep: usize| [vec!["exhaust".to_string(); deep], way.clone()].concat()[..20].to_vec();
    assert!(stopped(&cut(20)) && stopped(&cut(18)));
    let mut wrong = cut(18);
    wrong.swap(17, 18);
    assert!(!stopped(&wrong), "the descent goes on after a level");
    wrong = cut(18);
    wrong[19] = "burn".into();
    assert!(!stopped(&wrong), "somebody else's frame");
}
