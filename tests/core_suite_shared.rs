//! The official core test suite once more: the invocations of a module as interleaved fibers of one instance.
//!
//! Of every script, each module whose state its invocations can't change (`core_suite_shared/effects.rs` finds that
//! in the module) gets a store with one instance, and every `invoke` and assertion on it becomes a fiber, several
//! times, spawned in random order before the first one runs. They switch at every epoch check. Each must end as
//! its directive says. What stock Wasmtime fails is left out, as in `core_suite.rs`.
//!
//! `BOP_SEED` repeats a seed, which every run prints; `BOP_SUITE_FILTER=simd/` runs only the scripts whose
//! `folder/name` contains the text.
#![allow(missing_docs)]

mod support;

#[path = "core_suite_shared/controls.rs"]
mod controls;
#[path = "core_suite_shared/effects.rs"]
mod effects;
#[path = "core_suite_shared/run.rs"]
mod run;
#[path = "core_suite_shared/script.rs"]
mod script;
#[path = "core_suite_shared/value.rs"]
mod value;

use effects::{STATE, independent, plain_engine};
use run::together;
use script::modules;
use std::collections::{BTreeMap, HashSet};
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use support::stock_fails::STOCK_FAILS;
use support::wast::{self, Script, fiber_config, stock_config};
use support::{Rng, Runtime, ok};
use wasmtime::Engine;

const WORKERS: usize = 3;
/// Scripts under way at once, each with all its stores.
const DRIVERS: usize = 4;
const STACK: usize = 256 << 10;

/// Times that each invocation is made. Those of tail calls make up to a million, and switch at each of them.
fn repeats(script: &Script) -> usize {
    if script.name.starts_with("return_call") { 2 } else { 3 }
}

fn seed() -> u64 {
    let given = std::env::var("BOP_SEED").map(|text| text.parse().expect("BOP_SEED is a number"));
    let clock = |_| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000;
    let seed = given.unwrap_or_else(clock);
    println!("BOP_SEED={seed}");
    seed
}

/// Everything that scripts run with.
struct Rig {
    rt: Runtime,
    engine: Engine,
    stock: Engine,
    plain: Engine,
    seed: u64,
}

impl Rig {
    fn new() -> Rig {
        let mut out = null_mut();
        // SAFETY: the config is fresh, and `bop_runtime_new` takes it, with Wasmtime's.
        let (rt, engine) = unsafe {
            let config = bop::bop_config_new();
            bop::bop_config_wasm(config, fiber_config());
            bop::bop_config_workers(config, WORKERS);
            // At every epoch check.
            bop::bop_config_quantum(config, 0);
            bop::bop_config_stack_size(config, STACK);
            bop::bop_config_timing(config, true);
            ok(bop::bop_runtime_new(config, &mut out));
            ok(bop::bop_runtime_start(out));
            (Runtime(out), bop::engine_of(out))
        };
        let stock = Engine::new(&stock_config()).expect("stock engine");
        Rig { rt, engine, stock, plain: plain_engine(), seed: seed() }
    }

    /// The numbers of the directives that stock Wasmtime fails.
    fn stock_fails(&self, script: &Script) -> HashSet<usize> {
        if !STOCK_FAILS.iter().any(|(name, _)| *name == script.path()) {
            return HashSet::new();
        }
        let mut context = wast::context(&self.stock, |_| {});
        let pieces = wast::pieces(script.text).into_iter().enumerate();
        let failed = pieces.filter(|(_, piece)| {
            wast::run(&mut context, &script.name, piece.text, piece.line).is_some()
        });
        failed.map(|(number, _)| number).collect()
    }

    fn run(&self, script: &Script, number: usize, tally: &Mutex<Tally>) {
        let (mut modules, failing) = modules(script, &self.stock_fails(script));
        let mut left_out = BTreeMap::from([("stock Wasmtime fails it, or its module", failing)]);
        for module in &mut modules {
            let all = module.calls.len() + module.foreign;
            let invoked: HashSet<_> = module.calls.iter().map(|call| call.export.clone()).collect();
            let why = match independent(&self.plain, &module.wasm, &invoked, module.registered) {
                Ok(exports) => {
                    assert_eq!(module.foreign, 0, "{}:{}: objects, and no GC heap", script.path(), module.line);
                    module.calls.retain(|call| exports.contains(&call.export));
                    STATE
                }
                Err(why) => {
                    module.calls.clear();
                    why
                }
            };
            *left_out.entry(why).or_default() += all - module.calls.len();
        }
        modules.retain(|module| !module.calls.is_empty());
        let calls: usize = modules.iter().map(|module| module.calls.len()).sum();
        let mut rng = Rng::new(self.seed ^ (number as u64) << 32);
        let (name, repeats) = (script.path(), repeats(script));
        let report = together(&self.rt, &self.engine, &name, &modules, repeats, &mut rng);
        let mut tally = tally.lock().unwrap();
        tally.scripts += usize::from(calls > 0);
        tally.invoking += usize::from(calls + left_out.values().sum::<usize>() > 0);
        tally.modules += modules.len();
        tally.calls += calls;
        tally.fibers += report.fibers;
        tally.interleaved += report.interleaved;
        tally.returned += report.returned;
        tally.trapped += report.trapped;
        left_out.into_iter().for_each(|(why, calls)| *tally.left_out.entry(why).or_default() += calls);
        tally.wrong.extend(report.wrong.into_iter().map(|(line, text)| (name.clone(), line, text)));
    }

    /// Several scripts at a time, from threads with stacks that Cranelift likes.
    fn run_all(&self, scripts: &[Script]) -> Tally {
        let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
        let drive = || {
            loop {
                let number = next.fetch_add(1, Relaxed);
                let Some(script) = scripts.get(number) else { break };
                self.run(script, number, &tally);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..DRIVERS {
                std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, drive).unwrap();
            }
        });
        tally.into_inner().unwrap()
    }
}

#[derive(Default)]
struct Tally {
    scripts: usize,
    /// Scripts that invoke anything, whether it can run so or not.
    invoking: usize,
    modules: usize,
    calls: usize,
    /// As in a `Report`.
    fibers: usize,
    interleaved: usize,
    returned: usize,
    trapped: usize,
    /// The invocations that can't run so, by what stands against it.
    left_out: BTreeMap<&'static str, usize>,
    /// Script, line and what was wrong.
    wrong: Vec<(String, usize, String)>,
}

#[test]
fn invocations_agree_as_interleaved_fibers_of_one_instance() {
    let filter = std::env::var("BOP_SUITE_FILTER").unwrap_or_default();
    let scripts = wast::scripts(&filter);
    let (rig, start) = (Rig::new(), Instant::now());
    let all = rig.run_all(&scripts);
    let (stats, seconds) = (rig.rt.stats(), start.elapsed().as_secs_f64());
    let (run, modules, calls) = (all.scripts, all.modules, all.calls);
    println!("{} scripts, {} with invocations; {seconds:.1} s", scripts.len(), all.invoking);
    println!("  {run} scripts run so: {modules} modules with {calls} invocations");
    println!("  {} fibers: {} returned, {} trapped", all.fibers, all.returned, all.trapped);
    println!("  {} of them lost their turn to one that then began", all.interleaved);
    println!("  {} preemptions, {} steals, {WORKERS} workers", stats.preemptions, stats.steals);
    all.left_out.iter().for_each(|(why, calls)| println!("  {calls} invocations left out: {why}"));
    let first = &all.wrong[..all.wrong.len().min(20)];
    assert!(first.is_empty(), "{} fibers ended wrongly, the first: {first:#?}", all.wrong.len());
    assert_eq!(all.returned + all.trapped, all.fibers);
    if filter.is_empty() {
        // An idle run would agree, too.
        assert!(run > 300 && modules > 2_000 && calls > 80_000, "not the whole suite");
        assert!(all.trapped > 3_500, "only {} traps", all.trapped);
        assert!(stats.preemptions > 50_000_000, "no switch at every check");
        assert!(all.interleaved * 100 > all.fibers * 95, "fibers ran one after the other");
        // Few on a machine with one CPU.
        assert!(stats.steals > 0, "the stores stayed where they were");
    }
}
