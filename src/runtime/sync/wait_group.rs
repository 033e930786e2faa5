//! Wait groups: waiting until nothing is left to be done.

use super::Guarded;
use super::queue::{Fate, Queue};
use crate::runtime::wait::{Status, Waiter};

/// A number of things that are still to be done.
#[derive(Default)]
pub struct WaitGroup(Guarded<State>);

#[derive(Default)]
struct State {
    left: u64,
    waiters: Queue,
}

impl WaitGroup {
    /// So many more are to be done.
    pub fn add(&self, more: u64) -> Status {
        let mut state = self.0.lock();
        let Some(left) = state.left.checked_add(more) else { return Status::Invalid };
        state.left = left;
        Status::Ok
    }

    /// One is done. With the last, all who wait go on.
    pub fn done(&self) -> Status {
        let mut woken = Vec::new();
        {
            let mut state = self.0.lock();
            let Some(left) = state.left.checked_sub(1) else { return Status::Invalid };
            state.left = left;
            while left == 0 && !state.waiters.is_empty() {
                woken.extend(state.waiters.serve(|_| Fate::Served));
            }
        }
        woken.iter().for_each(|waiter| waiter.wake());
        Status::Ok
    }

    /// Waits until nothing is left: for a moment when it is so, although more may have been added since.
    pub fn wait(&self, deadline: Option<u64>) -> Status {
        if Waiter::cancelled() {
            return Status::Cancelled;
        }
        let state = self.0.lock();
        if state.left == 0 {
            return Status::Ok;
        }
        self.0.wait(state, |state| &mut state.waiters, 0, deadline).0
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.lock().left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::scope;

    #[test]
    fn all_who_wait_go_on_when_the_last_is_done() {
        let (group, done) = (WaitGroup::default(), AtomicU64::new(0));
        assert_eq!(group.done(), Status::Invalid);
        assert_eq!(group.wait(None), Status::Ok, "nothing is to be done");
        assert_eq!(group.add(4), Status::Ok);
        assert_eq!(group.wait(Some(0)), Status::Timeout);
        scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    assert_eq!(group.wait(None), Status::Ok);
                    assert_eq!(done.load(Ordering::SeqCst), 4);
                });
            }
            for _ in 0..4 {
                s.spawn(|| {
                    done.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(group.done(), Status::Ok);
                });
            }
        });
        assert_eq!((group.left(), group.done(), group.add(u64::MAX)), (0, Status::Invalid, Status::Ok));
        assert_eq!(group.add(1), Status::Invalid);
    }
}
