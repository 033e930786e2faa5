//! Those who wait for room: for one more fiber in a runtime, or in a store, that has as many as it may.

use std::collections::VecDeque;
use std::sync::Arc;

use super::end::Wake;
use crate::sys::barrier;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};
use crate::sys::sync::{Mutex, MutexGuard, PoisonError};

/// A queue of those who wait, the longest first. Room is not handed over: who is woken tries again.
#[derive(Default)]
pub struct Room {
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Arc<dyn Wake>>>,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<dyn Wake>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does nobody wait?
    pub fn is_free(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Lets `who` be woken when there is room; before all others, if it was woken already and came too late. If it is
    /// the first it must look for room once more before it waits.
    pub fn wait(&self, who: Arc<dyn Wake>, again: bool) -> bool {
        let mut queue = self.lock();
        if again {
            queue.push_front(who);
        } else {
            queue.push_back(who);
        }
        let first = again || queue.len() == 1;
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        // Partner: the light side in `made`: either that sees us, or we see the room.
        barrier::heavy();
        first
    }

    /// Does it still wait, whom this address names?
    pub fn waits(&self, who: *const ()) -> bool {
        self.lock().iter().any(|other| std::ptr::addr_eq(Arc::as_ptr(other), who))
    }

    /// It waits no more. If it was woken already that was for room that it does not take, so that is for another one.
    pub fn leave(&self, who: *const ()) {
        let mut queue = self.lock();
        let at = queue.iter().position(|other| std::ptr::addr_eq(Arc::as_ptr(other), who));
        let it = at.and_then(|at| queue.remove(at));
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        if it.is_none() {
            self.wake_one();
        }
    }

    /// There is room for one.
    #[inline]
    pub fn made(&self) {
        barrier::light();
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.wake_one();
        }
    }

    /// One has got in. There may be more room than for that one, made when nobody else waited.
    pub fn entered(&self) {
        if !self.is_free() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        let mut queue = self.lock();
        let first = queue.pop_front();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        first.inspect(|first| first.wake());
    }

    /// All look again: there may be room for many, or never be any.
    pub fn wake_all(&self) {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            self.wake_one();
        }
    }
}
