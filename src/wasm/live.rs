//! The fibers of a runtime that have not ended: how many, and which.
//!
//! A worker spawns and ends fibers without a lock or an atomic read-modify-write: it counts in words of its own, and
//! lists a fiber in a place that it has at hand. Who wants to see them all pays for both (`sys::barrier`).

use std::cell::{Cell, RefCell};
use std::ptr::{NonNull, null_mut};
use std::time::Duration;

use super::fiber::Fiber;
use super::room::Room;
use super::strand::Strand;
use crate::sched::Worker;
use crate::sys::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sys::sync::{self, Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::sys::{barrier, clock};

/// Places made at a time.
const CHUNK: usize = sync::capacity(512, 2);
/// Places that a worker takes at a time, and gives back when it has twice as many.
const AT_HAND: usize = sync::capacity(64, 1);

/// All live fibers of a runtime.
pub struct Live {
    /// Fibers that there may be.
    most: usize,
    /// How many there are, if there is a limit: given back before anybody can see that a fiber has ended, so
    /// that who has joined one can spawn another.
    entered: AtomicUsize,
    /// Who waits for there to be fewer.
    pub room: Room,
    /// Threads that want to be told when no fiber is left.
    interested: AtomicUsize,
    /// How often none was left while somebody was interested.
    zeros: Mutex<u64>,
    zero: Condvar,
    /// The first is of threads that are no workers; then each worker's own.
    counts: Box<[Count]>,
    /// How many of them were ever used.
    reach: AtomicUsize,
    /// Fibers that were counted as come, and refused.
    refused: AtomicU64,
    /// No more fibers may come in.
    closed: AtomicBool,
    /// Somebody looks into all places.
    looking: AtomicBool,
    register: Mutex<Register>,
}

/// Fibers that were ever listed, and those that were taken off the list: both only grow.
#[derive(Default)]
#[repr(align(128))]
struct Count {
    come: AtomicU64,
    left: AtomicU64,
}

/// Where a fiber is listed, from before it first runs until nothing is left of it but handles, just before its own
/// reference is dropped (invariant **listed is alive**); or null.
type Spot = NonNull<AtomicPtr<Fiber>>;

/// All places. None is ever freed, or moved, before the register is.
#[derive(Default)]
struct Register {
    chunks: Vec<Box<[AtomicPtr<Fiber>]>>,
    free: Vec<Spot>,
}

// SAFETY: the pointers lead into `chunks`.
unsafe impl Send for Register {}

/// A fiber's place. Touched by who lists the fiber, before anybody else knows it, and by its owner at its end.
#[derive(Debug, Default)]
pub struct Place(Cell<Option<Spot>>);

/// Free places that a worker keeps at hand.
#[derive(Default)]
pub struct Places {
    free: RefCell<Vec<Spot>>,
    /// Where they come from.
    live: Cell<Option<NonNull<Live>>>,
}

impl Places {
    /// Gives all of them back.
    pub fn flush(&self) {
        if let Some(live) = self.live.take() {
            // SAFETY: the worker runs in the scheduler that lives beside the list.
            unsafe { live.as_ref() }.register().free.append(&mut self.free.borrow_mut());
        }
    }
}

impl Register {
    fn take(&mut self) -> Spot {
        if let Some(spot) = self.free.pop() {
            return spot;
        }
        let chunk: Box<[AtomicPtr<Fiber>]> = (0..CHUNK).map(|_| AtomicPtr::default()).collect();
        self.chunks.push(chunk);
        // The first is taken first.
        self.free.extend(self.chunks.last().into_iter().flatten().rev().map(NonNull::from));
        self.free.pop().expect("just made")
    }
}

impl Live {
    /// An empty list, for at most so many fibers, and so many workers.
    pub fn new(most: usize, workers: usize) -> Live {
        Live {
            most,
            entered: AtomicUsize::new(0),
            room: Room::default(),
            interested: AtomicUsize::new(0),
            zeros: Mutex::default(),
            zero: Condvar::new(),
            counts: (0..=workers).map(|_| Count::default()).collect(),
            reach: AtomicUsize::new(1),
            refused: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            looking: AtomicBool::new(false),
            register: Mutex::default(),
        }
    }

    /// Takes a place for one more fiber; false if there are as many as there may be.
    pub fn enter(&self) -> bool {
        let more = |n| (n < self.most).then_some(n + 1);
        self.most == usize::MAX
            || self.entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Gives a fiber's place to others.
    pub fn vacate(&self) {
        if self.most != usize::MAX {
            self.entered.fetch_sub(1, Ordering::Relaxed);
            self.room.made();
        }
    }

    /// Is no fiber left, those included that are just ending?
    ///
    /// A fiber may come on one worker and leave on another, and not all counts can be read at once. So those that
    /// have left are summed up first, and those that have come after: whoever came before one left that is counted, is
    /// counted too, so if the sums are equal none was there in between.
    #[inline]
    pub fn is_empty(&self) -> bool {
        let left: u64 = self.counts().iter().map(|count| count.left.load(Ordering::Acquire)).sum();
        left == self.come()
    }

    fn come(&self) -> u64 {
        self.counts().iter().map(|count| count.come.load(Ordering::Acquire)).sum()
    }

    /// All that have counted anything: to be asked for anew for each sum. Who has read that a fiber left then finds the
    /// words of the worker on which it came, too.
    fn counts(&self) -> &[Count] {
        &self.counts[..self.reach.load(Ordering::Acquire)]
    }

    /// Fibers that ever were there.
    pub fn spawned(&self) -> u64 {
        let refused = self.refused.load(Ordering::Acquire);
        self.come().saturating_sub(refused)
    }

    /// Counts one more where this thread may.
    fn count(&self, which: fn(&Count) -> &AtomicU64, worker: Option<&Worker<Strand>>) {
        // Release: whoever reads it sees what came before.
        match worker {
            Some(worker) => {
                // One writer: no read-modify-write needed.
                let at = worker.index() + 1;
                if at >= self.reach.load(Ordering::Relaxed) {
                    self.reach.fetch_max(at + 1, Ordering::AcqRel);
                }
                let word = which(&self.counts[at]);
                word.store(word.load(Ordering::Relaxed) + 1, Ordering::Release);
            }
            None => {
                which(&self.counts[0]).fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Asks to be told of the end, for as long as the guard lives.
    pub fn interest(&self) -> Interest<'_> {
        self.interested.fetch_add(1, Ordering::SeqCst);
        let before = *self.lock_zeros();
        // Partner: the light side in `unlist`, before `is_over`: either the last fiber sees the interest, or the interested
        // sees that none is left.
        barrier::heavy();
        Interest { live: self, before }
    }

    fn lock_zeros(&self) -> MutexGuard<'_, u64> {
        self.zeros.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        // Nothing panics under the lock but a `Vec` that finds no memory, and that aborts.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, worker: Option<&Worker<Strand>>) -> Spot {
        let Some(worker) = worker else { return self.register().take() };
        let places = &worker.local().places;
        let mut free = places.free.borrow_mut();
        free.pop().unwrap_or_else(|| {
            places.live.set(Some(self.into()));
            let mut register = self.register();
            free.extend((1..AT_HAND).map(|_| register.take()));
            register.take()
        })
    }

    fn give(&self, spot: Spot, worker: Option<&Worker<Strand>>) {
        let Some(worker) = worker else { return self.register().free.push(spot) };
        let places = &worker.local().places;
        let mut free = places.free.borrow_mut();
        places.live.set(Some(self.into()));
        free.push(spot);
        if free.len() >= 2 * AT_HAND {
            self.register().free.extend(free.drain(AT_HAND..));
        }
    }

    /// Lists a fiber that is spawned on this worker, or on none; false if the list is closed. Then it is to be taken off,
    /// if it is there.
    #[must_use]
    pub fn list(&self, fiber: &Fiber, worker: Option<&Worker<Strand>>) -> bool {
        // Nobody shall wait for the end of one that is refused; and who asks again and again shall not look busy.
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        let spot = self.take(worker);
        fiber.place.0.set(Some(spot));
        self.count(|count| &count.come, worker);
        // SAFETY: the register lives. Release: who finds the fiber finds all of it.
        unsafe { spot.as_ref() }.store((&raw const *fiber).cast_mut(), Ordering::Release);
        // Partner: the heavy side in `all`: either it finds the fiber, or we see that it was closed.
        barrier::light();
        let open = !self.closed.load(Ordering::Relaxed);
        if !open {
            self.refused.fetch_add(1, Ordering::Release);
        }
        open
    }

    /// Takes a fiber off the list, when nothing of it is left but handles. It ended on this worker, or never ran.
    pub fn unlist(&self, fiber: &Fiber, worker: Option<&Worker<Strand>>) {
        let Some(spot) = fiber.place.0.take() else { return };
        // SAFETY: the register lives.
        unsafe { spot.as_ref() }.store(null_mut(), Ordering::Release);
        // Partners: the heavy sides in `all`, which either finds the place empty or is seen to look; in `interest`, for
        // `is_over`; and in `Shared::look_instead`, for the count of the strand's fibers.
        self.count(|count| &count.left, worker);
        barrier::light();
        // Acquire: who looked has taken its references, to the Release in `all`.
        if self.looking.load(Ordering::Acquire) {
            // It may be about to take a reference.
            drop(self.register());
        }
        self.give(spot, worker);
    }

    /// Does anybody want to know of the end, seen after all that the caller has done?
    pub fn is_of_interest(&self) -> bool {
        // Partner: the fence in `interest`: who comes later looks after us.
        fence(Ordering::SeqCst);
        self.interested.load(Ordering::Relaxed) > 0
    }

    /// Was it the last that has just left, and does somebody want to know?
    #[must_use = "tell the workers that wait for the end"]
    pub fn is_over(&self) -> bool {
        if self.interested.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Of two that leave at once, one must see that both have.
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
        let register = self.register();
        self.looking.store(true, Ordering::Relaxed);
        if close {
            self.closed.store(true, Ordering::Relaxed);
        }
        // Partners: the light sides in `list` and `unlist`.
        barrier::heavy();
        let spots = register.chunks.iter().flatten();
        let all = spots.filter_map(|spot| NonNull::new(spot.load(Ordering::Acquire))).map(|fiber| {
            // SAFETY: **listed is alive**: whoever takes it off from now on waits for the lock before it drops
            // its reference. Every fiber is in an `Arc`.
            unsafe {
                Arc::increment_strong_count(fiber.as_ptr());
                Arc::from_raw(fiber.as_ptr())
            }
        });
        let all = all.collect();
        self.looking.store(false, Ordering::Release);
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
