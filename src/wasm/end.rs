//! What came of a fiber, and who waits for it.

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;
use wasmtime_c_api::{wasm_trap_t, wasmtime_val_t};

use super::bridge;
use crate::sys::{clock, futex};

/// Arguments or results: mostly one or none, which needs no memory of its own.
pub type Values = SmallVec<[wasmtime_val_t; 1]>;

/// How a fiber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    Returned,
    Trapped,
    Cancelled,
    Exited,
    Failed,
    TimedOut,
    OutOfBudget,
}

/// What came of a fiber.
pub struct End {
    pub outcome: Outcome,
    pub results: Values,
    /// Taken by the first who asks.
    pub trap: Mutex<Option<Box<wasm_trap_t>>>,
    pub exit_code: i32,
}

impl End {
    /// An end with nothing but an outcome.
    pub fn plain(outcome: Outcome) -> End {
        End { outcome, results: Values::new(), trap: Mutex::default(), exit_code: 0 }
    }

    /// A function has returned.
    pub fn returned(results: Values) -> End {
        End { results, ..End::plain(Outcome::Returned) }
    }

    /// An end with words.
    pub fn with_error(outcome: Outcome, error: wasmtime::Error) -> End {
        End { trap: Mutex::new(Some(bridge::trap(error))), ..End::plain(outcome) }
    }

    /// Nobody will ever ask for the trap.
    pub fn forget_trap(&self) {
        // Who has returned has none, and that is the usual end.
        if self.outcome != Outcome::Returned {
            drop(self.trap.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    /// The body panicked.
    pub fn panicked(panic: Box<dyn Any + Send>) -> End {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        End::with_error(Outcome::Failed, wasmtime::Error::msg(format!("panic: {text}")))
    }
}

/// Who waits for something.
pub trait Wake: Send + Sync {
    /// It has happened, or it is worth looking again.
    fn wake(&self);
}

/// What a fiber holds, and others may wait for.
pub trait Abandon: Send + Sync {
    /// The fiber has ended with it.
    fn abandon(&self);
}

/// Who waits for the end of a fiber. Mostly nobody or one, which needs no memory.
#[derive(Default)]
pub struct Joiners {
    pub one: Option<Arc<dyn Wake>>,
    pub more: Vec<Arc<dyn Wake>>,
}

/// A flag that a thread waits for.
#[derive(Debug, Default)]
pub struct Event(AtomicU32);

impl Event {
    /// Waits until it is set; false if `deadline` (`CLOCK_MONOTONIC`) came first.
    pub fn wait(&self, deadline: Option<u64>) -> bool {
        while self.0.load(Ordering::Acquire) == 0 {
            if deadline.is_some_and(|d| clock::now() >= d) {
                return false;
            }
            futex::wait(&self.0, 0, deadline);
        }
        true
    }

    /// Makes it wait again. Only who waits for it calls this.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Wake for Event {
    fn wake(&self) {
        // Release: what the waker did is visible to who waited (Acquire in `wait`).
        self.0.store(1, Ordering::Release);
        futex::wake(&self.0, 1);
    }
}
