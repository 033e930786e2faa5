//! A test for each fact about Wasmtime that this library rests on (`docs/wasmtime.md`; here W1 to W10). Each
//! fails when the measure that goes with the fact is taken out.

mod guests;
mod turns;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wasmtime::{AsContextMut, Caller, Func, Instance, Linker, Module, Trap, WasmBacktrace};
use wasmtime_c_api::{WasmtimeStoreData, wasmtime_store_new, wasmtime_val_t, wasmtime_val_union};

use crate::fiber::state::Signal;
use crate::runtime::spawn::{Options, call};
use crate::runtime::wait::{self, Status};
use crate::runtime::{Config, Runtime};
use crate::wasm::activation::{StoreWords, ThreadWord};
use crate::wasm::end::Outcome;
use crate::wasm::fiber::{Fiber, current};
use crate::wasm::strand::Strand;
use crate::wasm::{bridge, locate};

/// A store with an instance, handed to a runtime.
struct Guest {
    strand: Arc<Strand>,
    funcs: Vec<(String, Func)>,
}

type Data = WasmtimeStoreData;

impl Guest {
    fn new(rt: &Runtime, wat: &str, define: impl FnOnce(&mut Linker<Data>)) -> Guest {
        let engine = &rt.shared.engine;
        let mut own = wasmtime_store_new(&rt.shared.c_engine, std::ptr::null_mut(), None);
        let store = bridge::store(&mut own);
        let mut linker = Linker::new(engine);
        linker.func_wrap("host", "yield", || assert_eq!(wait::yield_now(), Status::Ok)).unwrap();
        define(&mut linker);
        let module = Module::new(engine, wat).unwrap();
        let instance: Instance = linker.instantiate(&mut *store, &module).unwrap();
        let names: Vec<_> = module.exports().map(|e| e.name().to_string()).collect();
        let funcs = names.into_iter().filter_map(|name| {
            let func = instance.get_func(&mut *store, &name)?;
            Some((name, func))
        });
        let funcs = funcs.collect();
        Guest { strand: rt.store(own).unwrap(), funcs }
    }

    fn try_spawn(&self, name: &str, arg: i32, stack: Option<usize>) -> Result<Arc<Fiber>, String> {
        let func = &self.funcs.iter().find(|(n, _)| n == name).unwrap().1;
        let kind = wasmtime_c_api::WASMTIME_I32;
        let args = [wasmtime_val_t { kind, of: wasmtime_val_union { i32: arg } }];
        let options = Options { name: name.into(), stack_size: stack, ..Options::default() };
        // SAFETY: a live function, and a value of its kind.
        unsafe { call(&self.strand, func, &args, &options) }
    }

    fn spawn(&self, name: &str, arg: i32) -> Arc<Fiber> {
        self.try_spawn(name, arg, None).unwrap()
    }
}

fn runtime(config: Config) -> Runtime {
    Runtime::new(config).unwrap()
}

fn one_worker() -> Runtime {
    runtime(Config { workers: 1, ..Config::default() })
}

/// The error that ended a fiber, as the names of its frames and the trap's code.
fn trace(fiber: &Fiber) -> (Vec<String>, Option<Trap>) {
    let trap = fiber.end().unwrap().trap.lock().unwrap().take().expect("it trapped");
    let error = bridge::error_of(&trap);
    let frames = error.downcast_ref::<WasmBacktrace>().unwrap().frames();
    let names = frames.iter().map(|frame| frame.func_name().unwrap_or("?").to_string()).collect();
    (names, error.downcast_ref::<Trap>().copied())
}

/// Two ways down, each of which yields on every level and traps at the end.
const WAYS: &str = r#"(module
  (import "host" "yield" (func $yield))
  (func $left (export "left") (param i32)
    (call $yield)
    (if (i32.eqz (local.get 0)) (then unreachable))
    (call $left (i32.sub (local.get 0) (i32.const 1))) (call $yield))
  (func $right (export "right") (param i32)
    (call $yield)
    (if (i32.eqz (local.get 0)) (then unreachable))
    (call $right (i32.sub (local.get 0) (i32.const 1))) (call $yield)))"#;

fn each_traps_on_its_own_way(fibers: &[(&str, usize, Arc<Fiber>)]) {
    for (name, depth, fiber) in fibers {
        let (frames, code) = trace(fiber);
        assert_eq!(frames, vec![name.to_string(); depth + 1], "somebody else's frames");
        assert_eq!(code, Some(Trap::UnreachableCodeReached));
    }
}

#[test]
fn w1_the_activation_pointer_travels_with_the_fiber() {
    let rt = one_worker();
    let (a, b) = (Guest::new(&rt, WAYS, |_| {}), Guest::new(&rt, WAYS, |_| {}));
    let fibers = [("left", 7, a.spawn("left", 7)), ("right", 3, b.spawn("right", 3))];
    rt.run().unwrap();
    each_traps_on_its_own_way(&fibers);
    assert_eq!(ThreadWord::here().get(), 0, "nothing of theirs stays on the thread");
}

#[test]
fn w1_each_thread_keeps_its_own_bit() {
    locate::locate().unwrap();
    std::thread::spawn(|| {
        // SAFETY: the word of this thread, and reads of it only.
        let raw = || unsafe { *std::mem::transmute::<ThreadWord, *const usize>(ThreadWord::here()) };
        assert_eq!(raw(), 0);
        // SAFETY: no Wasm runs here.
        unsafe { ThreadWord::here().set(0x1000) };
        assert_eq!((raw(), ThreadWord::here().get()), (0x1000, 0x1000), "not initialised: no bit");
        // SAFETY: as above.
        unsafe { ThreadWord::here().set(0) };
        wasmtime::Engine::tls_eager_initialize();
        // SAFETY: as above.
        unsafe { ThreadWord::here().set(0x1000) };
        assert_eq!((raw(), ThreadWord::here().get()), (0x1001, 0x1000), "initialised: the bit stays");
        // SAFETY: as above.
        unsafe { ThreadWord::here().set(0) };
        assert_eq!(raw(), 1);
    })
    .join()
    .unwrap();
}

#[test]
fn w2_the_word_that_was_found_is_the_activation_pointer() {
    locate::locate().unwrap();
    let engine = wasmtime::Engine::default();
    // On several threads: the distance is the same on all.
    let check = move || {
        let top = std::hint::black_box(0_u8);
        below(&engine, std::hint::black_box(&raw const top) as usize);
    };
    #[inline(never)]
    fn below(engine: &wasmtime::Engine, top: usize) {
        let mut store = wasmtime::Store::new(engine, ());
        let bottom = AtomicUsize::new(0);
        let seen = Arc::new(Mutex::new((0, bottom)));
        let inside = Arc::clone(&seen);
        let host = Func::wrap(&mut store, move || {
            let here = 0_u8;
            let mut seen = inside.lock().unwrap();
            *seen.1.get_mut() = (&raw const here) as usize;
            seen.0 = ThreadWord::here().get();
        });
        assert_eq!(ThreadWord::here().get(), 0);
        host.call(&mut store, &[], &mut []).unwrap();
        assert_eq!(ThreadWord::here().get(), 0);
        let seen = seen.lock().unwrap();
        let bottom = seen.1.load(Ordering::Relaxed);
        assert!((bottom..top).contains(&seen.0), "{:x} is not on this stack", seen.0);
    }
    for _ in 0..3 {
        std::thread::spawn(check.clone()).join().unwrap();
    }
}

/// A compiler may compute a thread-local's address once for both sides of a suspension.
#[test]
fn w3_thread_locals_are_only_reached_through_functions_that_are_not_inlined() {
    fn visit(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    visit(&root.join("src"), &mut files);
    let macro_name = concat!("thread_local", "!");
    for (path, text) in &files {
        let expected = path.ends_with("sys/tls.rs");
        assert_eq!(text.contains(macro_name), expected, "{path}: thread-locals live in sys/tls.rs");
        if expected {
            let functions: Vec<_> = text.split("\npub fn ").collect();
            for pair in functions.windows(2).filter(|pair| pair[1].contains(".with(")) {
                assert!(pair[0].ends_with("#[inline(never)]"), "inlined: {}", pair[1]);
            }
            assert!(functions.len() > 3 && text.contains("black_box"));
        }
    }
    // Wasmtime marks its own accessors so only with this feature.
    let cargo = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let wasmtime = cargo.lines().find(|line| line.starts_with("wasmtime = ")).unwrap();
    assert!(wasmtime.contains("\"async\""));
    // W1: with this one there would be a second word.
    assert!(!cargo.contains("component-model-async"));
}

#[test]
fn w4_siblings_trap_into_their_own_stacks() {
    let rt = one_worker();
    let guest = Guest::new(&rt, WAYS, |_| {});
    let ways = [("left", 5), ("right", 9), ("left", 0), ("right", 2)];
    let fibers = ways.map(|(name, depth)| (name, depth, guest.spawn(name, depth as i32)));
    rt.run().unwrap();
    each_traps_on_its_own_way(&fibers);
}

/// The store's own words are back while a host thread has entered it, whatever its fibers are in the
/// middle of (W4, W5).
#[test]
fn a_host_thread_uses_a_store_beside_suspended_fibers() {
    let rt = one_worker();
    let parked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&parked);
    let guest = Guest::new(
        &rt,
        r#"(module
          (import "host" "park" (func $park))
          (func $left (export "left") (param i32)
            (if (i32.eqz (local.get 0)) (then (call $park) unreachable))
            (call $left (i32.sub (local.get 0) (i32.const 1))))
          (func $plain (export "plain") (param i32)
            (if (local.get 0) (then unreachable)))
          (func $deep (export "deep") (param i32) (call $deep (local.get 0)) (call $deep (local.get 0))))"#,
        |linker| {
            let park = move || {
                count.fetch_add(1, Ordering::Relaxed);
                assert_eq!(wait::park_until(None), Status::Ok);
            };
            linker.func_wrap("host", "park", park).unwrap();
        },
    );
    rt.start().unwrap();
    let fibers = [3, 0, 6].map(|depth| ("left", depth, guest.spawn("left", depth as i32)));
    while !fibers.iter().all(|(_, _, fiber)| fiber.word.parked()) {
        std::thread::yield_now();
    }
    assert_eq!(parked.load(Ordering::Relaxed), 3);
    let func = |name: &str| guest.funcs.iter().find(|(n, _)| n == name).unwrap().1;
    let mut frames = Vec::new();
    guest.strand.enter().unwrap();
    // SAFETY: this thread has entered.
    let store = unsafe { guest.strand.store() };
    func("plain").call(&mut *store, &[wasmtime::Val::I32(0)], &mut []).unwrap();
    for name in ["plain", "deep"] {
        let error = func(name).call(&mut *store, &[wasmtime::Val::I32(1)], &mut []).unwrap_err();
        let trace = error.downcast_ref::<WasmBacktrace>().unwrap().frames();
        assert!(trace.iter().all(|frame| frame.func_name() == Some(name)), "{error:?}");
        frames.push((trace.len(), error.downcast_ref::<Trap>().copied()));
    }
    guest.strand.exit().unwrap();
    assert_eq!(frames[0], (1, Some(Trap::UnreachableCodeReached)));
    assert_eq!(frames[1].1, Some(Trap::StackOverflow));
    for (_, _, fiber) in &fibers {
        fiber.signal(Signal::Permit);
        assert_eq!(wait::join_until(fiber, None), Status::Ok);
    }
    each_traps_on_its_own_way(&fibers);
    rt.shut_down(u64::MAX).unwrap();
}

const DEEP: &str = r#"(module
  (import "host" "yield" (func $yield))
  (import "host" "depth" (func $depth (param i32)))
  (func $down (param i32) (result i32)
    (call $depth (local.get 0))
    (i32.add (i32.const 1) (call $down (i32.add (local.get 0) (i32.const 1)))))
  (func (export "deep") (param i32)
    (call $yield) (drop (call $down (i32.const 0)))))"#;

#[test]
fn w5_each_fiber_has_the_limit_of_its_own_stack() {
    let rt = one_worker();
    let reached = Arc::new(Mutex::new([0_i32; 3]));
    let seen = Arc::clone(&reached);
    let guest = Guest::new(&rt, DEEP, |linker| {
        let depth = move |depth: i32| {
            let index = current().unwrap().id as usize - 1;
            seen.lock().unwrap()[index] = depth;
        };
        linker.func_wrap("host", "depth", depth).unwrap();
    });
    // All three are under way when the first goes down.
    let sizes = [256 << 10, 4 << 20, 256 << 10];
    let fibers = sizes.map(|size| guest.try_spawn("deep", 0, Some(size)).unwrap());
    rt.run().unwrap();
    for fiber in &fibers {
        assert_eq!(trace(fiber).1, Some(Trap::StackOverflow));
    }
    let [small, large, also_small] = *reached.lock().unwrap();
    // Wasm's parts are 192 KiB and 4032 KiB; Wasmtime's own limit would be 512 KiB for all.
    assert!(small > 100 && large > 15 * small && large < 30 * small, "{small} {large}");
    assert!((small - also_small).abs() <= 2, "{small} {also_small}");
}

const SPIN: &str = r#"(module
  (import "host" "yield" (func $yield))
  (func (export "spin") (param i32) (loop (br 0)))
  (func (export "count") (param i32)
    (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

#[test]
fn w6_the_callback_is_back_before_a_sibling_runs() {
    let rt = runtime(Config { workers: 1, quantum: 0, ..Config::default() });
    let guest = Guest::new(&rt, SPIN, |_| {});
    // While one is suspended inside the callback, the other comes to its own checks.
    let fibers = [guest.spawn("count", 500), guest.spawn("count", 700)];
    rt.run().unwrap();
    for fiber in &fibers {
        assert_eq!(fiber.end().unwrap().outcome, Outcome::Returned, "killed by an epoch check");
    }
}

#[test]
fn w7_the_store_knows_the_guard_of_the_running_stack() {
    let rt = one_worker();
    let right = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&right);
    let guest = Guest::new(
        &rt,
        r#"(module (import "host" "look" (func $look)) (func (export "run") (param i32)
             (call $look) (call $look)))"#,
        |linker| {
            let look = move |mut caller: Caller<'_, Data>| {
                // SAFETY: the store of the fiber that runs.
                let words = unsafe { StoreWords::of(caller.as_context_mut()).read() };
                let fiber = current().unwrap();
                let matches = words.guard == [fiber.guard.0, fiber.guard.1];
                seen.fetch_add(usize::from(matches), Ordering::Relaxed);
                assert_eq!(wait::yield_now(), Status::Ok);
            };
            linker.func_wrap("host", "look", look).unwrap();
        },
    );
    let _fibers = [guest.spawn("run", 0), guest.spawn("run", 0)];
    rt.run().unwrap();
    assert_eq!(right.load(Ordering::Relaxed), 4);
    guest.strand.enter().unwrap();
    // SAFETY: this thread has entered.
    let store = unsafe { guest.strand.store() };
    // SAFETY: as above.
    let words = unsafe { StoreWords::of(store).read() };
    guest.strand.exit().unwrap();
    assert_eq!((words.guard, words.stack_limit), ([0, 0], usize::MAX), "its own values are back");
}

#[test]
fn w8_a_cancelled_fiber_unwinds_itself() {
    /// What a host function keeps on the fiber's stack.
    struct OnStack(Arc<AtomicUsize>);
    impl Drop for OnStack {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let rt = one_worker();
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    let guest = Guest::new(
        &rt,
        r#"(module (import "host" "park" (func $park)) (func $spin (loop (br 0)))
             (func $run (export "run") (param i32) (call $park) (call $spin)))"#,
        |linker| {
            let park = move || {
                let _kept = OnStack(Arc::clone(&count));
                assert_eq!(wait::park_until(None), Status::Cancelled);
            };
            linker.func_wrap("host", "park", park).unwrap();
        },
    );
    let fiber = guest.spawn("run", 0);
    rt.start().unwrap();
    while !fiber.word.parked() {
        std::thread::yield_now();
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    assert!(fiber.cancel());
    assert_eq!(wait::join_until(&fiber, None), Status::Ok);
    assert_eq!(dropped.load(Ordering::Relaxed), 1, "the host's frame was left in order");
    assert_eq!(fiber.end().unwrap().outcome, Outcome::Cancelled);
    assert_eq!(trace(&fiber).0, ["spin", "run"]);
    rt.shut_down(u64::MAX).unwrap();
}

#[test]
fn w9_a_store_with_a_gc_heap_has_one_fiber_that_may_be_suspended() {
    let mut wasm = wasmtime::Config::new();
    wasm.wasm_function_references(true).wasm_gc(true);
    let rt = runtime(Config { wasm: Some(wasm), workers: 1, ..Config::default() });
    let refused = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&refused);
    let guest = Guest::new(
        &rt,
        r#"(module (type $box (struct (field i32)))
             (import "host" "try" (func $try))
             (func (export "box") (param i32) (local (ref null $box))
               (local.set 1 (struct.new $box (local.get 0)))
               (call $try)
               (if (i32.ne (local.get 0) (struct.get $box 0 (local.get 1))) (then unreachable))))"#,
        |linker| {
            let attempt = move || {
                let status = wait::yield_now();
                seen.fetch_add(usize::from(status == Status::StoreHasGc), Ordering::Relaxed);
            };
            linker.func_wrap("host", "try", attempt).unwrap();
        },
    );
    // Two before there is a heap: the first to make one may not be switched out beside the other.
    let early = [guest.spawn("box", 1), guest.spawn("box", 2)];
    rt.run().unwrap();
    assert_eq!(refused.load(Ordering::Relaxed), 1, "with a sibling: refused; as the last one: not");
    let alone = guest.spawn("box", 3);
    assert!(guest.try_spawn("box", 4, None).err().unwrap().contains("GC heap"));
    rt.run().unwrap();
    for fiber in early.iter().chain([&alone]) {
        assert_eq!(fiber.end().unwrap().outcome, Outcome::Returned);
    }
    assert_eq!(refused.load(Ordering::Relaxed), 1);
}

/// The deadline is one word per store, so it says nothing about a fiber's own slice.
#[test]
fn w10_a_slice_belongs_to_the_fiber_and_not_to_the_store() {
    // No tick comes within the test; epochs pass all the while.
    let rt = runtime(Config { workers: 1, quantum: 3_600_000_000_000, ..Config::default() });
    let engine = rt.shared.engine.clone();
    let guest = Guest::new(
        &rt,
        r#"(module (import "host" "yield" (func $yield)) (import "host" "epoch" (func $epoch))
             (func (export "run") (param i32)
               (loop (call $epoch)
                 (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#,
        |linker| {
            linker.func_wrap("host", "epoch", move || engine.increment_epoch()).unwrap();
        },
    );
    let fibers = [guest.spawn("run", 100), guest.spawn("run", 100)];
    rt.run().unwrap();
    for fiber in &fibers {
        assert_eq!(fiber.end().unwrap().outcome, Outcome::Returned);
        assert!(!fiber.word.take(Signal::Wake));
    }
    let preemptions: u64 = rt.shared.scheduler.counters().map(|c| c.preemptions()).sum();
    assert_eq!(preemptions, 0, "switched before its slice was over");
}
