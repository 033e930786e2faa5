//! A worker: a thread that runs strands.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;

use crossbeam_deque::{Steal, Worker as Deque};

use super::{Counters, Runnable, Scheduler, Turn};
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::{clock, sync, tls};

/// How often the injector comes first. Prime, so that it falls in step with nothing.
const INJECTOR_FIRST: u32 = 61;
/// How often a busy worker looks into the poller: a multiple of the former, since it is dear.
pub(super) const POLL_EVERY: u32 = 16 * INJECTOR_FIRST;
/// How often in a row the strand just woken may go before the others.
const NEXT_IN_A_ROW: u32 = 16;
/// Rounds of looking at every other worker before sleeping.
const SEARCH_ROUNDS: usize = sync::capacity(3, 1);

/// The private half of a worker. It lives on the stack of its thread for as long as that thread
/// is a worker; fibers on this thread reach it through `sys::tls`, and must ask again after every
/// suspension, since they may be on another worker then.
///
/// The first field must stay first: `Scheduler::here` reads it before it knows `R`.
#[repr(C)]
pub struct Worker<R: Runnable> {
    scheduler: *const Scheduler<R>,
    deque: Deque<Arc<R>>,
    index: usize,
    dispatched: Cell<u32>,
    next_in_a_row: Cell<u32>,
    rng: Cell<u64>,
    /// When it must leave, if a guest lets it; `u64::MAX`: when it is told.
    until: u64,
    local: R::Local,
    _not_send: PhantomData<*mut ()>,
}

impl<R: Runnable> Scheduler<R> {
    /// Makes this thread a worker until `go_on` says no; it is asked between turns, and whenever
    /// the worker was asleep. `None`, at once, if there are as many workers as there may be.
    pub fn run(&self, go_on: impl Fn() -> bool) -> Option<()> {
        self.work(u64::MAX, |worker| {
            while go_on() {
                if let Some(strand) = worker.find().or_else(|| worker.search_or_sleep(&go_on)) {
                    worker.turn(strand);
                }
            }
        })
    }

    /// Makes this thread a worker until there is nothing to do, or it is `until` (`CLOCK_MONOTONIC`). It never sleeps.
    pub fn run_for(&self, until: u64) -> Option<()> {
        // A guest that runs on and on must look at the clock.
        self.urge_soon();
        let ran = self.work(until, |worker| {
            // Whoever makes work from here on sees a worker; what was there is found below. A word in there is for us,
            // unless it is for a worker that sleeps there.
            if self.poller.take() {
                self.poller.unwake();
                let events = self.poller.poll(false);
                self.poller.give_back();
                self.poller.tell(events);
            }
            while let Some(strand) = worker.find().or_else(|| worker.steal()) {
                worker.turn(strand);
                if worker.is_due() {
                    break;
                }
            }
        });
        self.unurge();
        ran
    }

    /// Makes this thread a worker while it does `work`.
    fn work(&self, until: u64, work: impl FnOnce(&Worker<R>)) -> Option<()> {
        let (index, deque) = self.take_slot()?;
        let worker = Worker {
            scheduler: self,
            deque,
            index,
            dispatched: Cell::new(0),
            next_in_a_row: Cell::new(0),
            rng: Cell::new(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1)),
            until,
            local: R::Local::default(),
            _not_send: PhantomData,
        };
        let clock = clock::this_thread_cpu().map_or(0, |id| id as u32 as u64 | PRESENT);
        let slot = &self.slots[index];
        slot.cpu_clock.store(clock, Ordering::Release);
        self.idle.attach();
        self.look_for_demand();
        let outer = tls::set_worker((&raw const worker).cast_mut().cast());
        let leave = Leave { worker: &worker, outer };
        work(&worker);
        drop(leave);
        let deque = worker.deque;
        *slot.deque.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(deque);
        Some(())
    }
}

/// Ends a worker's time on its thread; also when a panic does. (Then its queue, emptied, stays unused.)
struct Leave<'a, R: Runnable> {
    worker: &'a Worker<R>,
    outer: *mut (),
}

impl<R: Runnable> Drop for Leave<'_, R> {
    fn drop(&mut self) {
        let scheduler = self.worker.scheduler();
        tls::set_worker(self.outer);
        self.worker.leave();
        scheduler.idle.detach();
        scheduler.look_for_demand();
        scheduler.settle();
        scheduler.slots[self.worker.index].cpu_clock.store(0, Ordering::Release);
    }
}

const PRESENT: u64 = 1 << 32;

/// CPU time of the thread behind a worker's `cpu_clock` word, while there is one.
pub(super) fn cpu_time(word: &AtomicU64) -> Option<u64> {
    let word = word.load(Ordering::Acquire);
    // A thread that has just left makes the read fail, which is the right answer.
    (word & PRESENT != 0).then(|| clock::read(word as u32 as libc::clockid_t)).flatten()
}

impl<R: Runnable> Worker<R> {
    /// The scheduler of this worker.
    pub fn scheduler(&self) -> &Scheduler<R> {
        // SAFETY: `run` borrows the scheduler for as long as the worker lives.
        unsafe { &*self.scheduler }
    }

    /// The worker that the calling thread is, if any. The caller vouches for `R`.
    ///
    /// # Safety
    ///
    /// All workers of this process that call this have the same `R`.
    #[inline]
    pub unsafe fn current() -> Option<*const Worker<R>> {
        let worker = tls::worker() as *const Worker<R>;
        (!worker.is_null()).then_some(worker)
    }

    /// Which of the scheduler's workers it is, from 0 up.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// This worker's counts.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.scheduler().slots[self.index].counters
    }

    /// What it keeps for those that it runs.
    #[inline]
    pub fn local(&self) -> &R::Local {
        &self.local
    }

    /// Has it been a worker for as long as it was told?
    #[inline]
    pub fn is_due(&self) -> bool {
        self.until != u64::MAX && clock::now() >= self.until
    }

    /// Does anything wait that this worker would run next? Or must it leave?
    #[inline]
    pub fn has_waiting(&self) -> bool {
        let scheduler = self.scheduler();
        self.is_due()
            || !self.deque.is_empty()
            || !scheduler.injector.is_empty()
            || !scheduler.slots[self.index].next.load(Ordering::Relaxed).is_null()
    }

    /// Queues a strand that became runnable on this worker's thread.
    pub(super) fn push(&self, strand: Arc<R>, fresh: bool) {
        let scheduler = self.scheduler();
        if fresh {
            self.deque.push(strand);
            scheduler.announce();
            return;
        }
        let slot = &scheduler.slots[self.index];
        // AcqRel: a thief that takes the pointer must see the strand, and so must we.
        let old = slot.next.swap(Arc::into_raw(strand).cast_mut(), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: from `Arc::into_raw`, and taken out by this swap alone.
            self.deque.push(unsafe { Arc::from_raw(old) });
            scheduler.announce();
        }
    }

    /// Inlined, as is `R::run`: after a fiber has switched back, the processor predicts each return
    /// on the way to the next fiber wrongly.
    #[inline(always)]
    fn turn(&self, strand: Arc<R>) {
        match R::run(&strand, self) {
            Turn::Idle => {}
            Turn::Again => self.deque.push(strand),
            Turn::Preempted => self.scheduler().injector.push(strand),
        }
    }

    /// Work that is here, without disturbing anybody.
    #[inline(always)]
    fn find(&self) -> Option<Arc<R>> {
        let dispatched = self.dispatched.get().wrapping_add(1);
        self.dispatched.set(dispatched);
        if dispatched.is_multiple_of(INJECTOR_FIRST)
            && let Some(strand) = self.take_injected_or_poll(dispatched)
        {
            return Some(strand);
        }
        if let Some(strand) = self.take_next() {
            return Some(strand);
        }
        self.next_in_a_row.set(0);
        self.take_own()
    }

    /// What is in our own places, or common to all.
    #[inline]
    fn take_own(&self) -> Option<Arc<R>> {
        self.deque.pop().or_else(|| self.take_from(self.index)).or_else(|| self.take_injected())
    }

    /// The strand in our slot, unless it is somebody else's turn.
    #[inline]
    fn take_next(&self) -> Option<Arc<R>> {
        let row = self.next_in_a_row.get();
        if row >= NEXT_IN_A_ROW && !self.deque.is_empty() {
            return None;
        }
        let strand = self.take_from(self.index)?;
        self.next_in_a_row.set(row + 1);
        Some(strand)
    }

    /// What is in the slot `next` of a worker.
    #[inline]
    fn take_from(&self, index: usize) -> Option<Arc<R>> {
        let next = &self.scheduler().slots[index].next;
        if next.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let strand = next.swap(null_mut(), Ordering::AcqRel);
        // SAFETY: from `Arc::into_raw`, and taken out by this swap alone.
        (!strand.is_null()).then(|| unsafe { Arc::from_raw(strand) })
    }

    #[inline]
    fn take_injected(&self) -> Option<Arc<R>> {
        let injector = &self.scheduler().injector;
        if injector.is_empty() {
            return None;
        }
        until_sure(|| injector.steal_batch_and_pop(&self.deque))
    }

    #[inline(never)]
    fn take_injected_or_poll(&self, dispatched: u32) -> Option<Arc<R>> {
        if dispatched.is_multiple_of(POLL_EVERY) {
            self.scheduler().look_for_events();
        }
        self.take_injected()
    }

    /// Takes from another worker: first its queue, then its slot.
    fn steal(&self) -> Option<Arc<R>> {
        let slots = self.scheduler().reached();
        let n = slots.len();
        let start = self.random() as usize % n;
        let others = (0..n).map(|i| (start + i) % n).filter(|&i| i != self.index);
        let found = others.clone().find_map(|i| {
            until_sure(|| slots[i].stealer.steal_batch_and_pop(&self.deque))
        });
        let found = found.or_else(|| others.clone().find_map(|i| self.take_from(i)));
        if found.is_some() {
            self.counters().count_steal();
        }
        found
    }

    /// Looks everywhere, and sleeps when there is nothing. `None`: ask whether to go on.
    #[inline(never)]
    fn search_or_sleep(&self, go_on: &impl Fn() -> bool) -> Option<Arc<R>> {
        let scheduler = self.scheduler();
        scheduler.idle.begin_search();
        loop {
            for _ in 0..SEARCH_ROUNDS {
                // Its own places too: what has happened in the poller has made work there.
                if let Some(strand) = self.take_own().or_else(|| self.steal()) {
                    // Who stops searching with work in hand hands the search on, if there is more.
                    if scheduler.idle.end_search() && scheduler.any_work() {
                        scheduler.announce();
                    }
                    return Some(strand);
                }
                std::hint::spin_loop();
            }
            R::rest(&self.local);
            let events = scheduler.idle.sleep(self.index, &scheduler.poller, || {
                scheduler.look_for_demand();
                scheduler.any_work() || !go_on()
            });
            scheduler.poller.tell(events);
            // Nobody is in the poller now.
            scheduler.look_for_demand();
            if !go_on() {
                if scheduler.idle.end_search() && scheduler.any_work() {
                    scheduler.announce();
                }
                return None;
            }
        }
    }

    /// Leaves nothing behind that only this worker would find.
    fn leave(&self) {
        let scheduler = self.scheduler();
        R::rest(&self.local);
        let mut left = false;
        while let Some(strand) = self.take_from(self.index).or_else(|| self.deque.pop()) {
            scheduler.injector.push(strand);
            left = true;
        }
        if left {
            scheduler.announce();
        }
    }

    /// xorshift64: only to spread thieves.
    fn random(&self) -> u64 {
        let mut x = self.rng.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.rng.set(x);
        x
    }
}

/// A steal that lost a race says nothing about the queue: ask until it does.
fn until_sure<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(value) => return Some(value),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}
