//! What the present execution has done so far, to be read when it fails.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{Location, PanicHookInfo};
use std::sync::Once;

use loom::thread::{ThreadId, current};

struct Step {
    thread: ThreadId,
    at: &'static Location<'static>,
    what: &'static str,
    value: u64,
}

thread_local! {
    static TRAIL: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
}

/// Notes what the caller has just done.
#[track_caller]
pub fn note(what: &'static str, value: u64) {
    let step = Step { thread: current().id(), at: Location::caller(), what, value };
    TRAIL.with_borrow_mut(|trail| trail.push(step));
}

/// Lets whatever fails from now on show its trail. To be called before any execution: loom's coroutines have a hook of
/// their own, which must come before this one.
pub fn show() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(fail)));
}

/// An execution begins.
pub fn boot() {
    TRAIL.with_borrow_mut(Vec::clear);
}

/// Ends the process: to unwind the threads of a model that is stuck would be to go on with it.
fn fail(info: &PanicHookInfo<'_>) {
    // Straight to the terminal: nobody will print what the test harness has captured.
    let mut out = std::io::stderr().lock();
    TRAIL.with_borrow(|trail| {
        for Step { thread, at, what, value } in trail {
            let file = at.file().rsplit('/').next().unwrap_or_default();
            let _ = writeln!(out, "{thread:?}  {:<16} {what} {value:#x}", format!("{file}:{}", at.line()));
        }
    });
    let test = std::thread::current();
    let _ = writeln!(out, "{info}\ntest {} ... FAILED", test.name().unwrap_or_default());
    std::process::exit(101);
}
