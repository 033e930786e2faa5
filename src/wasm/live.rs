//! The fibers of a runtime that have not ended: how many, and which.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fiber::Fiber;
use crate::sys::{barrier, clock};

/// Lists that fibers are spread over, so that spawning on all workers does not meet in one lock.
const SHARDS: usize = 16;

/// All live fibers of a runtime.
pub struct Live {
    /// Fibers that there may be.
    most: usize,
    /// Places taken, if there is a limit: given back before anybody can see that a fiber has ended, so
    /// that who has joined one can spawn another.
    places: AtomicUsize,
    /// Threads that want to be told when no fiber is left.
    interested: AtomicUsize,
    /// How often none was left while somebody was interested.
    zeros: Mutex<u64>,
    zero: Condvar,
    shards: [Shard; SHARDS],
}

#[derive(Default)]
#[repr(align(128))]
struct Shard {
    list: Mutex<List>,
    /// Fibers that were ever listed here, and those of them that were taken off. Written under the lock; a
    /// look needs none.
    come: AtomicU64,
    left: AtomicU64,
}

#[derive(Default)]
struct List {
    /// No more fibers may come in.
    closed: bool,
    /// A fiber is here from before it first runs until nothing is left of it but handles, just before its
    /// own reference is dropped (invariant **listed is alive**).
    fibers: Vec<*const Fiber>,
}

// SAFETY: the pointers are only followed under the lock, while what they point to is alive
// (**listed is alive**), and `Fiber` is `Sync`.
unsafe impl Send for List {}

/// Where a fiber is listed. Only touched under its shard's lock.
#[derive(Debug, Default)]
pub struct Place(AtomicU32);

impl Live {
    /// An empty list, for at most so many fibers.
    pub fn new(most: usize) -> Live {
        Live {
            most,
            places: AtomicUsize::new(0),
            interested: AtomicUsize::new(0),
            zeros: Mutex::default(),
            zero: Condvar::new(),
            shards: Default::default(),
        }
    }

    /// Takes a place for one more fiber; false if there are as many as there may be.
    pub fn enter(&self) -> bool {
        let more = |n| (n < self.most).then_some(n + 1);
        self.most == usize::MAX
            || self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives a fiber's place to others.
    pub fn vacate(&self) {
        if self.most != usize::MAX {
            self.places.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Is no fiber left, those included that are just ending?
    ///
    /// The counts of the shards can't be read all at once, and a fiber may be listed in one that was read already
    /// by one of another shard that has ended when that is read. So if all look empty, those that have left
    /// are summed up first and those that have come after: both only grow, and whoever came before somebody left is
    /// counted if that one is, so if the sums are equal none was there in between.
    #[inline]
    pub fn is_empty(&self) -> bool {
        let left = |shard: &Shard| shard.left.load(Ordering::Acquire);
        let come = |shard: &Shard| shard.come.load(Ordering::Acquire);
        if self.shards.iter().any(|shard| left(shard) != come(shard)) {
            return false;
        }
        let left: u64 = self.shards.iter().map(left).sum();
        left == self.shards.iter().map(come).sum::<u64>()
    }

    /// Asks to be told of the end, for as long as the guard lives.
    pub fn interest(&self) -> Interest<'_> {
        self.interested.fetch_add(1, Ordering::SeqCst);
        let before = *self.lock_zeros();
        // Partner: the light side in `unlist`: either the last fiber sees the interest, or the interested
        // sees that none is left.
        barrier::heavy();
        Interest { live: self, before }
    }

    fn lock_zeros(&self) -> MutexGuard<'_, u64> {
        self.zeros.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, fiber: &Fiber) -> (&Shard, MutexGuard<'_, List>) {
        let shard = &self.shards[fiber.id as usize % SHARDS];
        // Nothing panics under the lock but a `Vec` that finds no memory, and that aborts.
        (shard, shard.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists a fiber; false if the list is closed.
    #[must_use]
    pub fn list(&self, fiber: &Fiber) -> bool {
        let (shard, mut list) = self.shard(fiber);
        if !list.closed {
            fiber.place.0.store(list.fibers.len() as u32, Ordering::Relaxed);
            list.fibers.push(fiber);
            shard.come.store(shard.come.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
        !list.closed
    }

    /// Takes a fiber off the list, when nothing of it is left but handles; true if it was the last and somebody
    /// wants to know.
    #[must_use = "tell the workers that wait for the end"]
    pub fn unlist(&self, fiber: &Fiber) -> bool {
        let (shard, mut list) = self.shard(fiber);
        let at = fiber.place.0.load(Ordering::Relaxed) as usize;
        let gone = list.fibers.swap_remove(at);
        debug_assert!(std::ptr::eq(gone, fiber));
        if let Some(&moved) = list.fibers.get(at) {
            // SAFETY: **listed is alive**.
            unsafe { (*moved).place.0.store(at as u32, Ordering::Relaxed) };
        }
        // Release: whoever finds that none is left sees what this one did.
        shard.left.store(shard.left.load(Ordering::Relaxed) + 1, Ordering::Release);
        drop(list);
        // Partner: the heavy side in `interest`.
        barrier::light();
        if self.interested.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Of two that leave different shards at once, one must see that both are empty.
        fence(Ordering::SeqCst);
        if !self.is_empty() {
            return false;
        }
        *self.lock_zeros() += 1;
        self.zero.notify_all();
        true
    }

    /// All listed fibers. With `close`, no further fiber is listed from then on.
    pub fn all(&self, close: bool) -> Vec<Arc<Fiber>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut list = shard.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.closed |= close;
            all.extend(list.fibers.iter().map(|&fiber| {
                // SAFETY: **listed is alive**, and the list is locked; every fiber is in an `Arc`.
                unsafe {
                    Arc::increment_strong_count(fiber);
                    Arc::from_raw(fiber)
                }
            }));
        }
        all
    }
}

/// See [`Live::interest`].
pub struct Interest<'a> {
    live: &'a Live,
    before: u64,
}

impl Interest<'_> {
    /// Waits until no fiber is left, or was left at some moment: others may come in before this
    /// thread wakes up. False if `deadline` (`CLOCK_MONOTONIC`) came first.
    pub fn wait(&self, deadline: Option<u64>) -> bool {
        let mut zeros = self.live.lock_zeros();
        while !self.live.is_empty() && *zeros == self.before {
            let left = deadline.map_or(u64::MAX, |d| d.saturating_sub(clock::now()));
            if left == 0 {
                return false;
            }
            let left = Duration::from_nanos(left.min(3_600_000_000_000));
            let waited = self.live.zero.wait_timeout(zeros, left);
            zeros = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.live.interested.fetch_sub(1, Ordering::SeqCst);
    }
}
