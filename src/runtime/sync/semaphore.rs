//! Semaphores: a number of permits.

use super::Guarded;
use super::queue::{Fate, Queue};
use crate::runtime::wait::{Status, Waiter};

/// A counting semaphore. There are waiters only while it has no permits.
pub struct Semaphore(Guarded<State>);

struct State {
    permits: u64,
    waiters: Queue,
}

impl Semaphore {
    /// A semaphore with so many permits.
    pub fn new(permits: u64) -> Semaphore {
        Semaphore(Guarded::new(State { permits, waiters: Queue::default() }))
    }

    /// Takes a permit; waits while there is none.
    pub fn acquire(&self, deadline: Option<u64>) -> Status {
        if Waiter::cancelled() {
            return Status::Cancelled;
        }
        let mut state = self.0.lock();
        if state.permits > 0 {
            state.permits -= 1;
            return Status::Ok;
        }
        self.0.wait(state, |state| &mut state.waiters, 0, deadline).0
    }

    /// Adds permits, and serves as many waiters.
    pub fn release(&self, permits: u64) -> Status {
        let mut woken = Vec::new();
        {
            let mut state = self.0.lock();
            if state.permits.checked_add(permits).is_none() {
                return Status::Invalid;
            }
            let mut left = permits;
            while left > 0 && !state.waiters.is_empty() {
                woken.extend(state.waiters.serve(|_| Fate::Served));
                left -= 1;
            }
            state.permits += left;
        }
        woken.iter().for_each(|waiter| waiter.wake());
        Status::Ok
    }

    /// Permits at the moment.
    pub fn permits(&self) -> u64 {
        self.0.lock().permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::scope;

    #[test]
    fn no_more_get_in_than_there_are_permits_and_none_is_lost() {
        let semaphore = Semaphore::new(3);
        let (inside, most) = (AtomicU64::new(0), AtomicU64::new(0));
        scope(|s| {
            for _ in 0..6 {
                s.spawn(|| {
                    for _ in 0..2_000 {
                        assert_eq!(semaphore.acquire(None), Status::Ok);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        assert_eq!(semaphore.release(1), Status::Ok);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(semaphore.permits(), 3);
        assert_eq!(semaphore.release(u64::MAX), Status::Invalid);
        (0..3).for_each(|_| assert_eq!(semaphore.acquire(Some(0)), Status::Ok));
        assert_eq!(semaphore.acquire(Some(0)), Status::Timeout);
    }
}
