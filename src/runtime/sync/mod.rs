//! What fibers of any store and runtime, and plain threads, wait for together: channels, mutexes, semaphores, wait
//! groups.
//!
//! All are fair: who has waited longest is served first, nobody overtakes, and what one waits for is handed to
//! it rather than left for the quickest.

pub mod channel;
pub mod mutex;
pub mod queue;
pub mod semaphore;
pub mod wait_group;

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wait::{Status, Waiter};
use queue::{Fate, Node, Queue};

/// The state of such a thing, with its queues of waiters, behind the lock that guards both.
#[derive(Default)]
struct Guarded<T>(Mutex<T>);

/// Which of the state's queues.
type Side<T> = fn(&mut T) -> &mut Queue;

impl<T> Guarded<T> {
    fn new(state: T) -> Guarded<T> {
        Guarded(Mutex::new(state))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits in a queue until served, with a value to hand over or to be given. What has been handed over counts,
    /// whatever else came.
    fn wait(
        &self,
        mut state: MutexGuard<'_, T>,
        side: Side<T>,
        value: u64,
        deadline: Option<u64>,
    ) -> (Status, u64) {
        let waiter = match Waiter::here(deadline) {
            Ok(waiter) => waiter,
            Err(status) => return (status, 0),
        };
        let mut node = Node::new(value, waiter.waker());
        let place = Place { guarded: self, side, node: &raw mut node };
        // SAFETY: the node stays here until `place` is dropped, which takes it out; the lock guards it.
        unsafe { side(&mut state).push(place.node) };
        drop(state);
        // SAFETY: under the lock.
        let fate = || (self.lock(), unsafe { (*place.node).fate }).1;
        let status = waiter.wait(deadline, || fate() != Fate::Waits);
        // Only once it is out of the queue is its fate final: until then somebody may serve it.
        drop(place);
        match node.fate {
            Fate::Served => (Status::Ok, node.value),
            Fate::Closed => (Status::Closed, 0),
            Fate::Waits => (status, 0),
        }
    }
}

/// A node in a queue, until dropped.
struct Place<'a, T> {
    guarded: &'a Guarded<T>,
    side: Side<T>,
    node: *mut Node,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut state = self.guarded.lock();
        // SAFETY: the node outlives its place; under the lock; it is in the queue while it waits.
        unsafe {
            if (*self.node).fate == Fate::Waits {
                (self.side)(&mut state).remove(self.node);
            }
        }
    }
}
