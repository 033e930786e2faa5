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

    /// Lets `who` be woken when there is room. It must look for room once more before it waits.
    pub fn wait(&self, who: Arc<dyn Wake>) {
        let mut queue = self.lock();
        queue.push_back(who);
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        // Partner: the light side in `made`: either that sees us, or we see the room.
        barrier::heavy();
    }

    /// Does it still wait, whom this address names?
    pub fn waits(&self, who: *const ()) -> bool {
        self.lock().iter().any(|other| std::ptr::addr_eq(Arc::as_ptr(other), who))
    }

    /// It waits no more. If it was woken already, and has no use for the room, that is for another one.
    pub fn leave(&self, who: *const (), used: bool) {
        let mut queue = self.lock();
        let at = queue.iter().position(|other| std::ptr::addr_eq(Arc::as_ptr(other), who));
        let it = at.and_then(|at| queue.remove(at));
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        if it.is_none() && !used {
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

    #[cold]
    fn wake_one(&self) {
        let mut queue = self.lock();
        let first = queue.pop_front();
        self.waiting.store(queue.len(), Ordering::SeqCst);
        drop(queue);
        first.inspect(|first| first.wake());
    }

    /// There will be no room: all look again.
    pub fn close(&self) {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            self.wake_one();
        }
    }
}
