//! Who sleeps, who searches, and waking one.

use super::poller::{Events, Poller};
use crate::sys::futex;
use crate::sys::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sys::sync::{Mutex, MutexGuard, PoisonError};

/// What the word of a worker says.
const ASLEEP: u32 = 0;
const WOKEN: u32 = 1;
/// It sleeps in the poller.
const POLLS: u32 = 2;

/// Counts of workers, packed into one word so that they change together:
/// attached (a thread is this worker) << 32 | sleeping << 16 | searching.
const SEARCHING: u64 = 1;
const SLEEPING: u64 = 1 << 16;
const ATTACHED: u64 = 1 << 32;

fn searching(word: u64) -> u64 {
    word & 0xffff
}
fn sleeping(word: u64) -> u64 {
    word >> 16 & 0xffff
}

#[derive(Debug)]
pub struct Idle {
    counts: AtomicU64,
    /// The workers that sleep; the last one to fall asleep is the first to be woken (its cache is
    /// the warmest). The count of sleepers changes under this lock only.
    sleepers: Mutex<Vec<usize>>,
    /// One futex per worker.
    words: Box<[Word]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Word(AtomicU32);

impl Idle {
    pub fn new(workers: usize) -> Idle {
        assert!(workers < 0xffff);
        Idle {
            counts: AtomicU64::new(0),
            sleepers: Mutex::new(Vec::with_capacity(workers)),
            words: (0..workers).map(|_| Word::default()).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn attach(&self) {
        self.counts.fetch_add(ATTACHED, Ordering::SeqCst);
    }

    pub fn detach(&self) {
        self.counts.fetch_sub(ATTACHED, Ordering::SeqCst);
    }

    /// Workers that there are, and those of them that are not asleep.
    pub fn workers(&self) -> (u64, u64) {
        let counts = self.counts.load(Ordering::Relaxed);
        (counts >> 32, (counts >> 32) - sleeping(counts))
    }

    /// Does any worker sleep?
    pub fn any_asleep(&self) -> bool {
        sleeping(self.counts.load(Ordering::Relaxed)) > 0
    }

    pub fn begin_search(&self) {
        self.counts.fetch_add(SEARCHING, Ordering::SeqCst);
    }

    /// True if this was the last one that searched.
    pub fn end_search(&self) -> bool {
        searching(self.counts.fetch_sub(SEARCHING, Ordering::SeqCst)) == 1
    }

    /// Wakes a worker, unless one searches already. The caller has issued a `SeqCst` fence since
    /// it made the work visible. The woken worker counts as searching from this moment on, so that
    /// a burst of work wakes one worker and not all.
    pub fn wake_one(&self, poller: &Poller) {
        let counts = self.counts.load(Ordering::Relaxed);
        if searching(counts) > 0 || sleeping(counts) == 0 {
            return;
        }
        let mut sleepers = self.lock();
        if searching(self.counts.load(Ordering::SeqCst)) > 0 {
            return;
        }
        if let Some(worker) = sleepers.pop() {
            self.counts.fetch_add(SEARCHING.wrapping_sub(SLEEPING), Ordering::SeqCst);
            drop(sleepers);
            self.wake(worker, poller);
        }
    }

    pub fn wake_all(&self, poller: &Poller) {
        let mut sleepers = self.lock();
        let all = std::mem::take(&mut *sleepers);
        let n = all.len() as u64;
        self.counts.fetch_add(n.wrapping_mul(SEARCHING.wrapping_sub(SLEEPING)), Ordering::SeqCst);
        drop(sleepers);
        all.into_iter().for_each(|worker| self.wake(worker, poller));
    }

    fn wake(&self, worker: usize, poller: &Poller) {
        let word = &self.words[worker].0;
        // Release: what the waker did is visible to the woken (Acquire in `sleep`).
        match word.swap(WOKEN, Ordering::AcqRel) {
            POLLS => poller.wake(),
            _ => futex::wake(word, 1),
        }
    }

    /// Puts a searching worker to sleep, unless `last_look` finds something: in the poller if anybody uses that and
    /// no other worker has it. Returns when it was woken, or found something; it searches again then. What has happened
    /// in the poller is for the caller to tell.
    pub fn sleep(&self, worker: usize, poller: &Poller, last_look: impl FnOnce() -> bool) -> Events {
        let word = &self.words[worker].0;
        {
            let mut sleepers = self.lock();
            word.store(ASLEEP, Ordering::Relaxed);
            sleepers.push(worker);
            self.counts.fetch_add(SLEEPING.wrapping_sub(SEARCHING), Ordering::SeqCst);
        }
        // Partner: the fence of whoever makes work visible.
        fence(Ordering::SeqCst);
        if last_look() && self.stay_awake(worker) {
            return Events::default();
        }
        let mut events = Events::default();
        if poller.is_used() && poller.take() {
            let polls = word.compare_exchange(ASLEEP, POLLS, Ordering::AcqRel, Ordering::Acquire).is_ok();
            while polls && word.load(Ordering::Acquire) == POLLS && events.is_empty() && poller.is_used() {
                events = poller.poll(true);
            }
            poller.give_back();
            if self.stay_awake(worker) {
                return events;
            }
            // Somebody is about to wake us, and must have done so before we may sleep again.
            let _ = word.compare_exchange(POLLS, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        }
        while word.load(Ordering::Acquire) == ASLEEP {
            futex::wait(word, ASLEEP, None);
        }
        events
    }

    /// Takes a worker out of those that sleep; false if somebody has done so, to wake it, and has counted it as one that
    /// searches.
    fn stay_awake(&self, worker: usize) -> bool {
        let mut sleepers = self.lock();
        let at = sleepers.iter().position(|&w| w == worker);
        if let Some(at) = at {
            sleepers.remove(at);
            self.counts.fetch_add(SEARCHING.wrapping_sub(SLEEPING), Ordering::SeqCst);
        }
        at.is_some()
    }
}
