//! Workers, run queues, stealing, idling, ticks and timers. Knows no Wasm and no fibers: it runs
//! [`Runnable`]s. The only place that names crossbeam-deque.
//!
//! # The protocol
//!
//! What the queues hold are *strands*; each is in one queue at most, or being run by one worker
//! (`mailbox` sees to that). A worker looks for work in this order:
//!
//! ```text
//!   1. every 61st time: the injector            so that nothing there starves
//!   2. its slot `next`: the strand just woken   its data is in the cache; 16 times in a row at most
//!   3. its own deque, first in first out
//!   4. the injector, half of it                 new work from outside, and preempted strands
//!   5. another worker's deque, half of it; then another worker's slot
//!   6. the poller, in which it sleeps if no other worker does
//! ```
//!
//! A strand that yields goes to the end of its worker's deque; one that was preempted goes to the
//! injector, so that all who hog are served in turn by all workers, whoever started them.
//!
//! # Why no wake-up is lost
//!
//! `Idle` counts workers that *search* and workers that *sleep*. Who makes work available
//! ([`Scheduler::schedule`]) does: put it into a queue; `SeqCst` fence; read the counts; if nobody
//! searches and somebody sleeps, wake one. Who finds nothing does: count itself from searching to
//! sleeping; `SeqCst` fence; look into all queues once more; sleep. Of the two fences one comes
//! first: if the producer's does, the sleeper's last look sees the work; if the sleeper's does,
//! the producer reads the new counts and wakes it. A producer that sees a searcher leaves it to
//! that one: it has its own last look still before it. Weaker orders do not do: both sides write
//! one place and read another.
//!
//! A *yield* needs neither fence nor wake: it puts back a strand that was just taken out, so the
//! queue is never longer than at a moment when all the above has already been done for it. The
//! slot `next` is announced to nobody either, so that two fibers that wake each other stay on one
//! worker; if its worker runs on for long, the ticker wakes a thief for it at the next tick.
//!
//! # Descriptors
//!
//! An idle worker sleeps in the poller (`poller`), one at a time. When it comes out with work, no other takes its place:
//! that would cost a wake-up per event. It goes back when it is idle again; until then, that is while some worker is busy
//! and none is in the poller, the ticker looks into it at least once a millisecond. A busy worker also looks by itself, every
//! [`worker::POLL_EVERY`] turns.
//!
//! # Ticks
//!
//! The ticker thread makes preemption happen: while more fibers are active than workers are awake
//! (`Load`), that is, while somebody waits for a turn, it counts up once a quantum and tells the
//! runtime. While something is urgent ([`Scheduler::urge`]) it tells the runtime at least once a
//! millisecond, without counting. It sleeps when there is nothing to do. Whatever makes new demand (a fiber becomes active,
//! a worker falls asleep, comes or leaves) wakes it if it sleeps, by the same two fences; the ticker, which
//! falls asleep far less often than fibers become active, pays for both (`sys::barrier`).
//!
//! # Rejected
//!
//! * One queue for all: its lock or its cache line is what every switch would wait for.
//! * `membarrier` instead of the producer's fence: saves 5 ns per wake-up, costs an interrupt of
//!   every core per sleep; to be measured when wake-ups matter more than sleeps.
//! * A tick whatever happens: 20,000 wake-ups a second at a quantum of 50 µs, for nobody.

pub mod helpers;
mod idle;
mod load;
pub mod mailbox;
pub mod poller;
#[cfg(test)]
mod tests;
pub mod ticker;
pub mod timers;
mod worker;

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crossbeam_deque::{Injector, Stealer};

use crate::sys::barrier;
use crate::sys::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use crate::sys::sync::{Mutex, PoisonError};

use idle::Idle;
use load::Load;
pub use load::Counters;
pub use worker::Worker;

/// What a turn of a [`Runnable`] left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing to run: whoever gives it something to do schedules it again.
    Idle,
    /// It gave up the rest of its turn.
    Again,
    /// It lost its turn.
    Preempted,
}

/// What the run queues hold: a strand.
pub trait Runnable: Send + Sync + Sized + 'static {
    /// What each worker keeps for those that it runs.
    type Local: Default;

    /// Runs one turn on the calling worker. Nothing else runs this strand meanwhile.
    fn run(this: &Arc<Self>, worker: &Worker<Self>) -> Turn;

    /// The worker is about to sleep, or to leave.
    fn rest(local: &Self::Local);
}

/// What all workers of a runtime share.
pub struct Scheduler<R: Runnable> {
    injector: Injector<Arc<R>>,
    slots: Box<[Slot<R>]>,
    /// One more than the highest slot that a thread has ever taken: how far thieves look.
    reach: AtomicUsize,
    /// Reasons to tick although nobody waits for a turn; see [`Scheduler::urge`].
    urges: AtomicUsize,
    idle: Idle,
    load: Load,
    ticker: ticker::Ticker,
    /// Who waits for which descriptor.
    poller: Arc<poller::Poller>,
    /// Somebody outside watches the poller.
    watched: AtomicBool,
    /// Timers of sleeping fibers; the ticker thread fires them.
    pub timers: timers::Timers,
}

/// The shared half of a worker.
struct Slot<R> {
    stealer: Stealer<Arc<R>>,
    /// The private half of the queue, while no thread is this worker.
    deque: Mutex<Option<crossbeam_deque::Worker<Arc<R>>>>,
    /// The strand just woken; from `Arc::into_raw`, or null. Swapped, never peeked into.
    next: AtomicPtr<R>,
    counters: Counters,
    /// Id of the CPU clock of the thread that is this worker, plus a "present" bit; see `worker`.
    cpu_clock: AtomicU64,
}

impl<R: Runnable> Scheduler<R> {
    /// A scheduler for at most `workers` threads at a time, whose ticks come every `quantum`
    /// nanoseconds.
    pub fn new(workers: usize, quantum: u64) -> io::Result<Scheduler<R>> {
        let slot = || {
            let deque = crossbeam_deque::Worker::new_fifo();
            Slot {
                stealer: deque.stealer(),
                deque: Mutex::new(Some(deque)),
                next: AtomicPtr::default(),
                counters: Counters::default(),
                cpu_clock: AtomicU64::new(0),
            }
        };
        Ok(Scheduler {
            injector: Injector::new(),
            slots: (0..workers).map(|_| slot()).collect(),
            reach: AtomicUsize::new(0),
            urges: AtomicUsize::new(0),
            idle: Idle::new(workers),
            load: Load::default(),
            ticker: ticker::Ticker::new(quantum),
            poller: poller::Poller::new()?,
            watched: AtomicBool::new(false),
            timers: timers::Timers::default(),
        })
    }

    /// Makes a strand run. From any thread; `fresh` says that it is new rather than woken.
    pub fn schedule(&self, strand: Arc<R>, fresh: bool) {
        match self.here() {
            // SAFETY: `here` returned the worker of this very thread.
            Some(worker) => unsafe { (*worker).push(strand, fresh) },
            None => {
                self.injector.push(strand);
                self.announce();
            }
        }
    }

    /// One more fiber is active (`n` = 1), or one fewer (`n` = -1). Count up before the fiber can
    /// run.
    pub fn active(&self, n: i64) {
        self.active_at(self.worker_here(), n);
    }

    /// The same, by a worker or none.
    #[inline]
    pub fn active_at(&self, worker: Option<&Worker<R>>, n: i64) {
        match worker {
            Some(worker) => worker.counters().add_active(n),
            None => self.load.add(n),
        }
        if n > 0 {
            // Partner: the heavy side in the ticker, before it looks at the load for the last time.
            barrier::light();
            self.ticker.demand();
        }
    }

    #[cfg(test)]
    fn attached_and_awake(&self) -> (u64, u64) {
        self.idle.workers()
    }

    /// Makes guests look up again and again, although no slice is over, until as many
    /// [`Scheduler::unurge`] have been called: one was cancelled, or its store is wanted.
    pub fn urge(&self) {
        self.urges.fetch_add(1, Ordering::SeqCst);
        // Whatever it waits for may be an hour away.
        self.ticker.kick();
    }

    /// The same, within a millisecond.
    pub fn urge_soon(&self) {
        self.urges.fetch_add(1, Ordering::SeqCst);
        // Partner: as in `active`.
        barrier::light();
        self.ticker.demand();
    }

    /// Takes an [`Scheduler::urge`] back.
    pub fn unurge(&self) {
        self.urges.fetch_sub(1, Ordering::Relaxed);
    }

    /// Is there a reason to tick?
    fn demand(&self) -> bool {
        self.is_urged() || self.somebody_waits() || self.must_poll()
    }

    /// Are there waits for descriptors, and busy workers, none of which is in the poller? (Without any worker it is for
    /// whoever watches from outside.)
    fn must_poll(&self) -> bool {
        self.poller.is_used() && !self.poller.is_taken() && self.idle.workers().0 > 0
    }

    /// Lets `who` wait for a descriptor; see [`poller::Poller::add`].
    pub fn wait_fd(&self, fd: RawFd, events: u32, who: Arc<dyn poller::Ready>) -> Result<u64, poller::Refused> {
        let key = self.poller.add(fd, events, who);
        // Partner: as in `active`.
        barrier::light();
        if self.must_poll() {
            self.ticker.demand();
        }
        key
    }

    /// Waits for it no more.
    pub fn wait_fd_no_more(&self, fd: RawFd, key: u64) {
        self.poller.remove(fd, key);
    }

    /// Looks into the poller, unless a worker is in there.
    fn look_for_events(&self) {
        if self.poller.is_used() && self.poller.take() {
            let events = self.poller.poll(false);
            self.poller.give_back();
            self.poller.tell(events);
            // Somebody may have found us in there, and so not told the ticker that nobody is.
            barrier::light();
            if self.must_poll() {
                self.ticker.demand();
            }
        }
    }

    /// A worker has left: who watches from outside must know of what it left behind, and so must others of the poller.
    fn settle(&self) {
        // Partner: the fence in `announce`, whose caller may still have seen a worker.
        fence(Ordering::SeqCst);
        if self.any_work() || self.must_poll() {
            self.announce();
        }
    }

    /// Is there a worker, and a guest that must look up?
    fn is_urged(&self) -> bool {
        self.urges.load(Ordering::Relaxed) > 0 && self.idle.workers().0 > 0
    }

    /// Does somebody wait for a turn?
    fn somebody_waits(&self) -> bool {
        let (attached, awake) = self.idle.workers();
        attached > 0 && self.load.active(self.counters()) > awake as i64
    }

    /// Wakes the ticker if there is demand that it may not know of: fewer workers are awake.
    fn look_for_demand(&self) {
        // Partner: as in `active`.
        fence(Ordering::SeqCst);
        if self.demand() {
            self.ticker.demand();
        }
    }

    /// Adds a timer, and tells the ticker.
    pub fn time(&self, deadline: u64, what: Arc<dyn timers::Expire>) -> timers::Key {
        let (key, first) = self.timers.add(deadline, what);
        if first {
            self.ticker.kick();
        }
        key
    }

    /// The current tick.
    #[inline]
    pub fn tick(&self) -> u64 {
        self.ticker.count()
    }

    /// The ticker, to run and to stop.
    pub fn ticker(&self) -> &ticker::Ticker {
        &self.ticker
    }

    /// Workers that threads are at the moment.
    pub fn attached(&self) -> u64 {
        self.idle.workers().0
    }

    /// Wakes all workers, so that each asks again whether to go on.
    pub fn wake_all(&self) {
        self.idle.wake_all(&self.poller);
    }

    /// What worker `index` has counted, and the CPU time in nanoseconds of the thread that it is.
    pub fn worker_stats(&self, index: usize) -> Option<(&Counters, Option<u64>)> {
        self.slots.get(index).map(|s| (&s.counters, worker::cpu_time(&s.cpu_clock)))
    }

    /// The worker that the calling thread is, if it is one of this scheduler. Not to be kept across a
    /// suspension.
    #[inline]
    pub fn worker_here(&self) -> Option<&Worker<R>> {
        // SAFETY: `here` returned the worker of this very thread, which outlives its run.
        self.here().map(|worker| unsafe { &*worker })
    }

    /// The counters of all workers.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.slots.iter().map(|s| &s.counters)
    }

    /// Wakes a sleeping worker if there is one and nobody searches. Call it after a push.
    fn announce(&self) {
        // Partner: the fence in `Idle::sleep`. See "Why no wake-up is lost".
        fence(Ordering::SeqCst);
        self.idle.wake_one(&self.poller);
        if self.watched.load(Ordering::Relaxed) && self.attached() == 0 {
            self.poller.wake();
        }
    }

    /// A descriptor that is readable when there is something to do and no thread is a worker.
    pub fn watch(&self) -> RawFd {
        self.watched.store(true, Ordering::SeqCst);
        // What was there before.
        if self.any_work() && self.attached() == 0 {
            self.poller.wake();
        }
        self.poller.descriptor()
    }

    /// When a worker should come back if none is there, as far as can be told: `None`, when the descriptor is readable.
    pub fn next(&self) -> Option<u64> {
        // The last but one stands for never: see `Timers`.
        if self.any_work() { Some(0) } else { self.timers.earliest().filter(|at| *at < u64::MAX - 1) }
    }

    /// The worker of this scheduler that the calling thread is, if it is one.
    fn here(&self) -> Option<*const Worker<R>> {
        let worker = crate::sys::tls::worker() as *const Worker<R>;
        // SAFETY: a worker's first field is the address of its scheduler, whatever its `R`; that
        // address being ours proves that `R` is ours too. The worker outlives its run on this
        // thread.
        (!worker.is_null() && unsafe { *worker.cast::<*const ()>() } == (&raw const *self).cast())
            .then_some(worker)
    }

    /// How many slots threads have ever taken.
    pub fn reach(&self) -> usize {
        self.reach.load(Ordering::Acquire)
    }

    /// The slots that any thread has ever taken.
    fn reached(&self) -> &[Slot<R>] {
        &self.slots[..self.reach()]
    }

    /// Is there anything in any queue that a thief could take?
    fn any_work(&self) -> bool {
        !self.injector.is_empty()
            || self
                .reached()
                .iter()
                .any(|s| !s.stealer.is_empty() || !s.next.load(Ordering::Relaxed).is_null())
    }

    /// Takes a worker's place; `None` if there are as many workers as there may be.
    fn take_slot(&self) -> Option<(usize, crossbeam_deque::Worker<Arc<R>>)> {
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let mut deque = slot.deque.lock().unwrap_or_else(PoisonError::into_inner);
            let deque = deque.take()?;
            self.reach.fetch_max(index + 1, Ordering::AcqRel);
            Some((index, deque))
        })
    }
}

impl<R: Runnable> Drop for Scheduler<R> {
    fn drop(&mut self) {
        for slot in &self.slots {
            let next = slot.next.swap(std::ptr::null_mut(), Ordering::Acquire);
            if !next.is_null() {
                // SAFETY: `next` holds what `Arc::into_raw` gave, and nobody else took it.
                drop(unsafe { Arc::from_raw(next) });
            }
        }
    }
}
