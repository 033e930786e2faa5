//! What workers count, and how many fibers are active.
//!
//! Each worker counts in words of its own, with plain loads and stores: the sum over all workers
//! is what means something. A fiber may become active on one worker and inactive on another, so a
//! single worker's `active` may be negative.

use crate::sys::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A worker's counts. Written by the thread that is the worker, read by anybody.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    active: AtomicI64,
    switches: AtomicU64,
    preemptions: AtomicU64,
    steals: AtomicU64,
    parks: AtomicU64,
    wakes: AtomicU64,
    finished: AtomicU64,
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $count:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> u64 {
            self.$name.load(Ordering::Relaxed)
        }
        /// Counts one more. Only the worker itself calls this.
        #[inline]
        pub fn $count(&self) {
            // One writer: no read-modify-write needed.
            self.$name.store(self.$name.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    };
}

impl Counters {
    counter!(
        /// Fibers resumed.
        switches, count_switch);
    counter!(
        /// Fibers that lost their turn at an epoch check.
        preemptions, count_preemption);
    counter!(
        /// Times that this worker took strands from another one.
        steals, count_steal);
    counter!(
        /// Fibers that began to wait.
        parks, count_park);
    counter!(
        /// Fibers woken by this worker.
        wakes, count_wake);
    counter!(
        /// Fibers that ended on this worker.
        finished, count_finished);

    /// Counts a fiber that became active on this worker, or inactive.
    #[inline]
    pub fn add_active(&self, n: i64) {
        self.active.store(self.active.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

/// Active fibers counted by threads that are not workers.
#[derive(Debug, Default)]
pub struct Load(AtomicI64);

impl Load {
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// All active fibers. Exact when nothing changes; otherwise it may miss an activation that
    /// happens at the same time, and whoever makes that one looks for the ticker afterwards.
    pub fn active<'a>(&self, workers: impl Iterator<Item = &'a Counters>) -> i64 {
        let own: i64 = workers.map(|c| c.active.load(Ordering::Relaxed)).sum();
        own + self.0.load(Ordering::Relaxed)
    }
}
