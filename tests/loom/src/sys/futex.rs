//! A futex whose waits end only when woken: no early returns for no reason, so that a lost wake-up is a deadlock, which
//! loom reports. A wait until a moment that is near ends at once.

use std::collections::HashMap;
use std::rc::Rc;

use traced::trail::note;

use super::clock;
use super::sync::atomic::{AtomicU32, Ordering};
use super::sync::{Condvar, Mutex};

/// Where those wait that wait on one word.
#[derive(Default)]
struct Bucket {
    lock: Mutex<()>,
    woken: Condvar,
}

#[derive(Default)]
struct Buckets(std::cell::RefCell<HashMap<usize, Rc<Bucket>>>);

// SAFETY: all threads of a model run on one thread, and none is switched away from within `bucket`.
unsafe impl Sync for Buckets {}

loom::lazy_static! {
    static ref BUCKETS: Buckets = Buckets::default();
}

pub(super) fn boot() {
    BUCKETS.0.borrow_mut().clear();
}

fn bucket(word: &AtomicU32) -> Rc<Bucket> {
    let at = (&raw const *word).addr();
    Rc::clone(BUCKETS.0.borrow_mut().entry(at).or_default())
}

#[track_caller]
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) {
    if deadline.is_some_and(clock::pass_until) {
        note("futex waits until", clock::now());
        loom::thread::yield_now();
        return;
    }
    let bucket = bucket(word);
    let guard = bucket.lock.lock().unwrap();
    // As the kernel does: who changes the word before this wakes after it.
    if word.load(Ordering::Relaxed) == expected {
        note("futex sleeps on", expected.into());
        drop(bucket.woken.wait(guard));
        note("futex is woken", 0);
    }
}

#[track_caller]
pub fn wake(word: &AtomicU32, n: i32) {
    let bucket = bucket(word);
    let guard = bucket.lock.lock().unwrap();
    note("futex wakes", n as u64);
    (0..n).for_each(|_| bucket.woken.notify_one());
    drop(guard);
}
