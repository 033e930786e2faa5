//! Calls that block their thread, made by helper threads while the fiber waits.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::on_worker;
use super::spawn::HostFn;
use super::wait::{Status, Waiter};
use crate::sched::helpers::Job;
use crate::wasm::end::Wake;
use crate::wasm::fiber::current;
use crate::wasm::guest::Env;

/// Where a call is.
const QUEUED: u8 = 0;
const RUNS: u8 = 1;
/// It returned.
const DONE: u8 = 2;
/// It was taken back before it began.
const WITHDRAWN: u8 = 3;

/// A call, and what came of it.
struct Call {
    function: HostFn,
    /// Taken by who makes the call, or takes it back.
    env: Mutex<Option<Env>>,
    state: AtomicU8,
    result: AtomicI64,
    waker: Arc<dyn Wake>,
}

impl Job for Call {
    fn run(&self) {
        if self.state.compare_exchange(QUEUED, RUNS, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        if let Some(env) = self.take_env() {
            // SAFETY: the host gave both for this call.
            let result = unsafe { (self.function)(env.data) };
            self.result.store(result, Ordering::Relaxed);
        }
        // Release: who sees it sees the result.
        self.state.store(DONE, Ordering::Release);
        self.waker.wake();
    }
}

impl Call {
    fn take_env(&self) -> Option<Env> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Takes the call back; false if it has begun.
    fn withdraw(&self) -> bool {
        self.state.compare_exchange(QUEUED, WITHDRAWN, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// When a caller stops waiting for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// When it has returned, or has not begun when the caller is cancelled.
    UntilDone,
    /// At a deadline, or when the caller is cancelled, and leaves it to its end.
    Until(u64),
}

/// Makes a call on a helper thread. The result is there with `Status::Ok` only.
pub fn blocking(function: HostFn, env: Env, patience: Patience) -> (Status, i64) {
    if Waiter::cancelled() {
        return (Status::Cancelled, 0);
    }
    let deadline = match patience {
        Patience::UntilDone => None,
        Patience::Until(deadline) => Some(deadline),
    };
    let Some(fiber) = current() else {
        if on_worker() {
            return (Status::NotAllowed, 0);
        }
        // SAFETY: the host gave both for this call.
        return (Status::Ok, unsafe { function(env.data) });
    };
    let waiter = match Waiter::here(deadline) {
        Ok(waiter) => waiter,
        Err(status) => return (status, 0),
    };
    let (state, result) = (AtomicU8::new(QUEUED), AtomicI64::new(0));
    let call = Arc::new(Call { function, env: Mutex::new(Some(env)), state, result, waker: waiter.waker() });
    if !fiber.shared().helpers.submit(Arc::clone(&call) as Arc<dyn Job>) {
        return (Status::Limit, 0);
    }
    let mut status = waiter.wait(deadline, || call.is_done());
    if status != Status::Ok {
        if call.withdraw() {
            fiber.shared().helpers.withdraw(Arc::as_ptr(&call).cast());
            // The finalizer runs here.
            drop(call.take_env());
        } else if patience == Patience::UntilDone {
            // What it was given may be on the caller's stack.
            waiter.wait_whatever(|| call.is_done());
            status = Status::Ok;
        }
    }
    (status, call.result.load(Ordering::Relaxed))
}
