//! Deadlines of things that wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::sync::{Mutex, MutexGuard, PoisonError};

/// What a timer tells when it is due.
pub trait Expire: Send + Sync {
    /// The deadline has passed. Called by the ticker thread, with no lock held, when the timer is gone.
    fn expire(&self, timer: Key);
}

/// Timers that are taken out under one lock.
const AT_A_TIME: usize = 64;

/// Names a timer that has not fired: its deadline, and a number that makes it unique.
pub type Key = (u64, u64);

/// Timers in the order of their deadlines (`CLOCK_MONOTONIC` nanoseconds); equal deadlines fire in
/// the order in which they were added.
#[derive(Default)]
pub struct Timers {
    queue: Mutex<Queue>,
    /// The earliest deadline + 1, 0 for none. Written under the lock.
    earliest: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: BTreeMap<Key, Arc<dyn Expire>>,
    added: u64,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_earliest(&self, queue: &Queue) {
        let earliest = queue.entries.first_key_value().map_or(0, |(k, _)| k.0.saturating_add(1));
        self.earliest.store(earliest, Ordering::SeqCst);
    }

    /// Adds a timer. True in the second place: it is now the earliest, so whoever fires timers
    /// must be told.
    pub fn add(&self, deadline: u64, what: Arc<dyn Expire>) -> (Key, bool) {
        let mut queue = self.lock();
        queue.added += 1;
        let key = (deadline, queue.added);
        queue.entries.insert(key, what);
        let first = queue.entries.first_key_value().is_some_and(|(k, _)| *k == key);
        if first {
            self.note_earliest(&queue);
        }
        (key, first)
    }

    /// Removes a timer; false if it has fired (or is about to: `expire` may still be running).
    pub fn remove(&self, key: Key) -> bool {
        let mut queue = self.lock();
        let removed = queue.entries.remove(&key).is_some();
        self.note_earliest(&queue);
        removed
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<u64> {
        self.earliest.load(Ordering::SeqCst).checked_sub(1)
    }

    /// Fires all timers that are due.
    pub fn fire(&self, now: u64) {
        while self.earliest().is_some_and(|at| at <= now) {
            let mut due = SmallVec::<[_; AT_A_TIME]>::new();
            {
                let mut queue = self.lock();
                while due.len() < AT_A_TIME
                    && let Some(first) = queue.entries.first_entry().filter(|first| first.key().0 <= now)
                {
                    due.push(first.remove_entry());
                }
                self.note_earliest(&queue);
            }
            due.iter().for_each(|(key, what)| what.expire(*key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log(u64, Arc<Mutex<Vec<u64>>>);
    impl Expire for Log {
        fn expire(&self, _: Key) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn fire_in_order_and_only_what_is_due() {
        let (timers, log) = (Timers::default(), Arc::default());
        let add = |at, id| timers.add(at, Arc::new(Log(id, Arc::clone(&log))));
        assert!(add(30, 1).1);
        assert!(add(10, 2).1);
        let (key, first) = add(10, 3);
        assert!(!first);
        add(20, 4);
        assert!(timers.remove(key) && !timers.remove(key));
        timers.fire(9);
        assert!(log.lock().unwrap().is_empty());
        timers.fire(20);
        assert_eq!(*log.lock().unwrap(), [2, 4]);
        assert_eq!(timers.earliest(), Some(30));
        timers.fire(u64::MAX - 1);
        assert_eq!((timers.earliest(), log.lock().unwrap().len()), (None, 3));
    }
}
