//! The calls that may suspend the calling fiber; on a plain thread they block the thread.
//!
//! Each waits in a loop for a condition of its own: a wake-up may be left over from an earlier wait.
//! Nothing here keeps anything of the thread across a suspension.

use std::fmt;
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fiber::state::{Interest, Signal};
use crate::fiber::switch::Suspend;
use crate::sched::timers::{Expire, Key};
use crate::sys::clock;
use crate::wasm::end::{Event, Wake};
use crate::wasm::fiber::{Fiber, current};

use super::on_worker;

/// What a call inside a fiber returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Timeout,
    Cancelled,
    NotFiber,
    NotAllowed,
    StoreHasGc,
    Closed,
    /// A number makes no sense.
    Invalid,
    /// There is no more of something: the user's or the kernel's limits, or our own.
    Limit,
    /// What it is about is of no use.
    Failed,
    /// It is the caller's now, but who had it before has died with it.
    Abandoned,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "ok",
            Status::Timeout => "the deadline came first",
            Status::Cancelled => "the fiber was cancelled",
            Status::NotFiber => "not called from a fiber",
            Status::NotAllowed => "it can't wait here",
            Status::StoreHasGc => "the store has a GC heap",
            Status::Closed => "it is closed",
            Status::Invalid => "a number makes no sense",
            Status::Limit => "a limit is reached",
            Status::Failed => "it is of no use",
            Status::Abandoned => "its holder has ended",
        })
    }
}

#[inline]
fn status(fiber: &Fiber) -> Status {
    if fiber.cancelled() { Status::Cancelled } else { Status::Ok }
}

#[inline]
fn may_suspend(fiber: &Fiber) -> Result<(), Status> {
    if fiber.no_switch.get() {
        return Err(Status::NotAllowed);
    }
    if fiber.strand.may_suspend() { Ok(()) } else { Err(Status::StoreHasGc) }
}

/// One more reference to the fiber that calls.
fn reference(fiber: &Fiber) -> Arc<Fiber> {
    // SAFETY: every fiber is in an `Arc`, and one that runs is alive.
    unsafe {
        Arc::increment_strong_count(fiber);
        Arc::from_raw(fiber)
    }
}

/// A timer of the running fiber, removed when dropped.
struct Timer<'a> {
    fiber: &'a Fiber,
    key: Option<Key>,
    deadline: Option<u64>,
}

impl<'a> Timer<'a> {
    fn new(fiber: &'a Fiber, deadline: Option<u64>) -> Timer<'a> {
        let scheduler = &fiber.shared().scheduler;
        let key = deadline.map(|deadline| scheduler.time(deadline, reference(fiber) as Arc<dyn Expire>));
        Timer { fiber, key, deadline }
    }

    fn is_due(&self) -> bool {
        self.deadline.is_some_and(|deadline| clock::now() >= deadline)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        // If it has fired it is gone, and needs no lock. Numbers are never used again.
        if let Some(key) = self.key
            && self.fiber.fired.load(Ordering::Relaxed) != key.1
        {
            self.fiber.shared().scheduler.timers.remove(key);
        }
    }
}

/// Waits until something signals the fiber that it is interested in (also a signal which came before).
fn suspend(fiber: &Fiber, interest: Interest) {
    fiber.word.interest(interest);
    fiber.suspend(Suspend::Park);
    fiber.word.take(Signal::Wake);
}

/// Gives up the turn.
#[inline]
pub fn yield_now() -> Status {
    let Some(fiber) = current() else { return Status::Ok };
    if let Err(status) = may_suspend(fiber) {
        return status;
    }
    fiber.suspend(Suspend::Yield);
    status(fiber)
}

/// Sleeps until `deadline`.
pub fn sleep_until(deadline: u64) -> Status {
    let Some(fiber) = current() else {
        if on_worker() {
            return Status::NotAllowed;
        }
        clock::sleep_until(deadline);
        return Status::Ok;
    };
    if fiber.cancelled() {
        return Status::Cancelled;
    }
    if clock::now() >= deadline {
        return yield_now();
    }
    if let Err(status) = may_suspend(fiber) {
        return status;
    }
    let timer = Timer::new(fiber, Some(deadline));
    loop {
        suspend(fiber, Interest::Cancel);
        if fiber.cancelled() {
            return Status::Cancelled;
        }
        if timer.is_due() {
            return Status::Ok;
        }
    }
}

/// Waits for a permit, and consumes it.
pub fn park_until(deadline: Option<u64>) -> Status {
    let Some(fiber) = current() else { return Status::NotFiber };
    let ready = |timer: Option<&Timer>| {
        if fiber.cancelled() {
            return Some(Status::Cancelled);
        }
        if fiber.word.take(Signal::Permit) {
            return Some(Status::Ok);
        }
        let due = match timer {
            Some(timer) => timer.is_due(),
            None => deadline.is_some_and(|deadline| clock::now() >= deadline),
        };
        due.then_some(Status::Timeout)
    };
    if let Some(status) = ready(None) {
        return status;
    }
    if let Err(status) = may_suspend(fiber) {
        return status;
    }
    let timer = Timer::new(fiber, deadline);
    loop {
        suspend(fiber, Interest::Permit);
        if let Some(status) = ready(Some(&timer)) {
            return status;
        }
    }
}

/// Who calls, and waits for something that others bring about: a fiber, or a plain thread.
pub enum Waiter {
    Fiber(&'static Fiber),
    Thread(Arc<Event>),
}

impl Waiter {
    /// Is the caller a fiber that was cancelled?
    pub fn cancelled() -> bool {
        current().is_some_and(Fiber::cancelled)
    }

    /// The caller, if it may wait: not for what is due already.
    pub fn here(deadline: Option<u64>) -> Result<Waiter, Status> {
        let fiber = current();
        if fiber.is_some_and(Fiber::cancelled) {
            return Err(Status::Cancelled);
        }
        if deadline.is_some_and(|deadline| clock::now() >= deadline) {
            return Err(Status::Timeout);
        }
        match fiber {
            Some(fiber) => may_suspend(fiber).map(|()| Waiter::Fiber(fiber)),
            None if on_worker() => Err(Status::NotAllowed),
            None => Ok(Waiter::Thread(Arc::default())),
        }
    }

    /// What wakes it.
    pub fn waker(&self) -> Arc<dyn Wake> {
        match self {
            Waiter::Fiber(fiber) => reference(fiber),
            Waiter::Thread(event) => Arc::clone(event) as Arc<dyn Wake>,
        }
    }

    /// Waits until `done`, which is asked whenever the waker was used.
    pub fn wait(&self, deadline: Option<u64>, mut done: impl FnMut() -> bool) -> Status {
        match self {
            Waiter::Fiber(fiber) => {
                let timer = Timer::new(fiber, deadline);
                loop {
                    suspend(fiber, Interest::Cancel);
                    if done() {
                        return Status::Ok;
                    }
                    if fiber.cancelled() {
                        return Status::Cancelled;
                    }
                    if timer.is_due() {
                        return Status::Timeout;
                    }
                }
            }
            Waiter::Thread(event) => loop {
                let in_time = event.wait(deadline);
                event.reset();
                if done() {
                    return Status::Ok;
                }
                if !in_time {
                    return Status::Timeout;
                }
            },
        }
    }
}

impl Waiter {
    /// Waits until `done`, also if it is cancelled.
    pub fn wait_whatever(&self, mut done: impl FnMut() -> bool) {
        while !done() {
            match self {
                Waiter::Fiber(fiber) => suspend(fiber, Interest::Nothing),
                Waiter::Thread(event) => {
                    event.wait(None);
                    event.reset();
                }
            }
        }
    }
}

/// Waits for the end of `other`.
pub fn join_until(other: &Fiber, deadline: Option<u64>) -> Status {
    if other.word.finished() {
        return Status::Ok;
    }
    let myself = match current() {
        Some(fiber) => std::ptr::eq(fiber, other) || !Arc::ptr_eq(fiber.shared(), other.shared()),
        None => other.strand.doors.held_here(),
    };
    if myself {
        return Status::NotAllowed;
    }
    let waiter = match Waiter::here(deadline) {
        Ok(waiter) => waiter,
        Err(status) => return status,
    };
    let finished = || other.word.finished();
    if let Waiter::Fiber(fiber) = waiter
        && Arc::ptr_eq(&fiber.strand, &other.strand)
        && other.sibling.get().is_null()
    {
        // Whenever this fiber runs, its worker owns the other one too.
        other.sibling.set(fiber);
        let status = waiter.wait(deadline, finished);
        if status != Status::Ok {
            other.sibling.set(null());
        }
        return status;
    }
    let waker = waiter.waker();
    let name = Arc::as_ptr(&waker).cast();
    if !other.add_joiner(waker) {
        return Status::Ok;
    }
    let status = waiter.wait(deadline, finished);
    if status != Status::Ok {
        other.remove_joiner(name);
    }
    status
}
