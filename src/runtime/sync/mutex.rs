//! Mutexes.
//!
//! The holder is a fiber or a thread, and only that can unlock. A fiber that ends with a mutex leaves it *abandoned*: the
//! next to lock it is told so, once, since what the mutex protects may be half done.

use std::sync::Arc;

use super::Guarded;
use super::queue::{Fate, Queue};
use crate::runtime::wait::{Status, Waiter};
use crate::wasm::doors::this_thread;
use crate::wasm::end::Abandon;
use crate::wasm::fiber::{Fiber, current};

/// See the head of this file.
#[derive(Default)]
pub struct Mutex(Guarded<State>);

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    /// Its last holder has ended without unlocking it, and nobody knows yet.
    abandoned: bool,
    waiters: Queue,
}

/// Who holds a mutex: the address of a fiber, or the number of a thread, in a word that waits in queues.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Holder(u64);

impl Holder {
    fn here() -> Holder {
        match current() {
            Some(fiber) => Holder::of(fiber),
            // No fiber lies at an odd address.
            None => Holder(this_thread() << 1 | 1),
        }
    }

    fn of(fiber: &Fiber) -> Holder {
        Holder((&raw const *fiber) as u64)
    }
}

impl State {
    /// What the new holder is told.
    fn told(&mut self) -> Status {
        if std::mem::take(&mut self.abandoned) { Status::Abandoned } else { Status::Ok }
    }
}

impl Mutex {
    /// Locks it; waits while another one holds it.
    pub fn lock(self: &Arc<Mutex>, deadline: Option<u64>) -> Status {
        if Waiter::cancelled() {
            return Status::Cancelled;
        }
        let me = Holder::here();
        let mut state = self.0.lock();
        let status = match state.holder {
            None => {
                state.holder = Some(me);
                state.told()
            }
            Some(holder) if holder == me => return Status::NotAllowed,
            Some(_) => match self.0.wait(state, |state| &mut state.waiters, me.0, deadline) {
                (Status::Ok, _) => self.0.lock().told(),
                (status, _) => return status,
            },
        };
        if let Some(fiber) = current() {
            fiber.holds(Arc::clone(self) as Arc<dyn Abandon>);
        }
        status
    }

    /// Unlocks it. Only its holder can.
    pub fn unlock(self: &Arc<Mutex>) -> Status {
        let me = Holder::here();
        if self.0.lock().holder != Some(me) {
            return Status::NotAllowed;
        }
        if let Some(fiber) = current() {
            fiber.holds_no_more(Arc::as_ptr(self).cast());
        }
        self.pass_on(false);
        Status::Ok
    }

    /// Hands it to who has waited longest.
    fn pass_on(&self, abandoned: bool) {
        let mut state = self.0.lock();
        state.abandoned |= abandoned;
        let mut next = None;
        let waiter = state.waiters.serve(|node| {
            next = Some(Holder(node.value));
            Fate::Served
        });
        state.holder = next;
        drop(state);
        waiter.inspect(|waiter| waiter.wake());
    }
}

impl Abandon for Mutex {
    fn abandon(&self) {
        self.pass_on(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;
    use std::cell::UnsafeCell;
    use std::thread::scope;

    struct Sum(UnsafeCell<u64>);
    // SAFETY: the test uses it under its mutex only.
    unsafe impl Sync for Sum {}

    #[test]
    fn one_at_a_time_and_only_the_holder_unlocks() {
        const N: u64 = 5_000;
        let (mutex, sum) = (Arc::new(Mutex::default()), Sum(UnsafeCell::new(0)));
        scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let sum = &sum;
                    for _ in 0..N {
                        assert_eq!(mutex.lock(None), Status::Ok);
                        // SAFETY: under the mutex.
                        unsafe { *sum.0.get() += 1 };
                        assert_eq!(mutex.unlock(), Status::Ok);
                    }
                });
            }
        });
        assert_eq!(sum.0.into_inner(), 4 * N);
        assert_eq!(mutex.unlock(), Status::NotAllowed, "nobody holds it");
        assert_eq!(mutex.lock(None), Status::Ok);
        assert_eq!(mutex.lock(None), Status::NotAllowed, "it would wait for itself");
        let other = || (mutex.unlock(), mutex.lock(Some(0)), mutex.lock(Some(clock::now() + 1_000_000)));
        let statuses = scope(|s| s.spawn(other).join().unwrap());
        assert_eq!(statuses, (Status::NotAllowed, Status::Timeout, Status::Timeout));
    }
}
