//! What something parked keeps in memory: the growth of this process's resident set.
//!
//! A process gives little back, so only the first measurement of each would mean anything: every
//! round is a process of its own. What the kernel keeps for a thread or a mapping is not seen.

use crate::guests::Guest;
use crate::measure::{Duel, Scale, Unit};
use crate::ours::{Fiber, Runtime};
use crate::rival::{Import, Rival};
use crate::yields::GUEST;
use std::ffi::c_void;
use std::process::{Command, exit};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use wasmtime::ValRaw;

/// The option that makes this program one round: a kind and a count follow it.
pub const CHILD: &str = "--parked";

const FIBERS: u32 = 10_000;
/// As many threads may be more than a machine allows.
const THREADS: u32 = 1_000;

/// Bytes per parked host fiber.
pub fn host_fibers(scale: Scale) -> Duel {
    let (fibers, threads) = (few(scale, FIBERS), few(scale, THREADS));
    Duel::new(move || round("host", fibers))
        .against("parked std::thread", move || round("threads", threads))
        .in_unit(Unit::Bytes)
}

/// Bytes per parked Wasm call.
pub fn wasm_calls(scale: Scale) -> Duel {
    let calls = few(scale, FIBERS);
    Duel::new(move || round("wasm", calls))
        .against("pending call_async, own stores", move || round("async", calls))
        .in_unit(Unit::Bytes)
}

/// Bytes per parked Wasm call with a stack of its own in the memory of a shared instance.
pub fn shared_calls(scale: Scale) -> Duel {
    let calls = few(scale, FIBERS);
    Duel::new(move || round("shared", calls))
        .against("pending call_async, own stores", move || round("async", calls))
        .in_unit(Unit::Bytes)
}

/// Memory is quick to measure, and too few of anything would drown in what is not theirs.
fn few(scale: Scale, full: u32) -> u32 {
    if scale.quick { full / 5 } else { full }
}

fn round(kind: &str, count: u32) -> f64 {
    let program = std::env::current_exe().expect("no path of this program");
    let output = Command::new(program).args([CHILD, kind, &count.to_string()]).output();
    let output = output.expect("can't run this program again");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "measuring {kind} failed: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("a round prints a number")
}

/// One round: prints bytes per parked thing, and ends the process with all of them still parked.
pub fn child(kind: Option<String>, count: Option<String>) -> ! {
    let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(1);
    let grown = match kind.as_deref() {
        Some("host") => park_host_fibers(count),
        Some("wasm") => park_wasm_fibers(count, GUEST, false),
        Some("shared") => park_wasm_fibers(count, COMPILED, true),
        Some("async") => suspend_calls(count),
        Some("threads") => park_threads(count),
        _ => exit(2),
    };
    println!("{}", grown / f64::from(count));
    exit(0)
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("no /proc");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.expect("statm has numbers") * page as f64
}

/// Parks one thing first, for what only the first one costs, then `count` more.
fn parked_fibers(count: u32, spawn: impl Fn() -> Fiber) -> f64 {
    let mut fibers = Vec::with_capacity(count as usize + 1);
    let mut park = |n: u32| {
        fibers.extend((0..n).map(|_| spawn()));
        while !fibers.iter().all(Fiber::parked) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    park(1);
    let before = resident();
    park(count);
    let grown = resident() - before;
    // The handles go with the process: dropping them would detach the fibers.
    std::mem::forget(fibers);
    grown
}

extern "C" fn parks(_: *mut c_void) -> i64 {
    let _ = bop::bop_park();
    0
}

extern "C" fn guest_parks(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    _: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    let _ = bop::bop_park();
    None
}

fn park_host_fibers(count: u32) -> f64 {
    let rt = Runtime::new(1, None);
    rt.start();
    let grown = parked_fibers(count, || rt.spawn_host(parks, null_mut()));
    std::mem::forget(rt);
    grown
}

/// A guest with a stack in its memory, which this one leaves alone.
const COMPILED: &str = r#"(module
  (import "host" "yield" (func $yield))
  (memory (export "memory") 2)
  (global (export "__stack_pointer") (mut i32) (i32.const 65536))
  (func (export "yields") (param i32 i32) (call $yield)))"#;

/// All in one instance.
fn park_wasm_fibers(count: u32, text: &str, shared: bool) -> f64 {
    let rt = Runtime::new(1, None);
    rt.start();
    let guest = Guest::new(&rt, text, guest_parks);
    let mut store = guest.store(&rt, "yields");
    if shared {
        store = store.share(None);
    }
    let grown = parked_fibers(count, || store.spawn(&[1, 1]));
    std::mem::forget((store, guest, rt));
    grown
}

/// Each in a store and an instance of its own, which is what suspended calls need; they count.
fn suspend_calls(count: u32) -> f64 {
    let suspend = |n: u32| Rival::new(n as usize, "yields", Import::Yields, false).suspend_all();
    suspend(1);
    let before = resident();
    suspend(count);
    resident() - before
}

/// Threads that wait.
static WAITING: AtomicU32 = AtomicU32::new(0);

fn waits() {
    WAITING.fetch_add(1, SeqCst);
    loop {
        std::thread::park();
    }
}

fn park_threads(count: u32) -> f64 {
    let park = |n: u32| {
        let wanted = WAITING.load(SeqCst) + n;
        for _ in 0..n {
            std::thread::spawn(waits);
        }
        while WAITING.load(SeqCst) < wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    park(1);
    let before = resident();
    park(count);
    resident() - before
}
