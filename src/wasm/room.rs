//! Those who wait for room: for one more fiber in a runtime, or in a store, that has as many as it may.
//!
//! Room is not handed over: who is woken tries again. One is woken at a time (invariant **in order**): if it gets in it wakes
//! the next one, for whom there may be room too; if it comes too late, for one who does not wait may have been quicker, it is
//! the first again. Those who come meanwhile, and would wait too, stay behind.

use std::collections::VecDeque;
use std::sync::Arc;

use super::end::Wake;
use crate::sys::barrier;
use crate::sys::sync::atomic::{AtomicUsize, Ordering};
use crate::sys::sync::{Mutex, MutexGuard, PoisonError};

/// A queue of those who wait, the longest first.
#[derive(Default)]
pub struct Room {
    /// Those in the queue, and those that were woken. Written under the lock.
    waiting: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Arc<dyn Wake>>,
    /// One was woken, and has not tried yet.
    woken: bool,
}

impl Inner {
    fn place(&self, who: *const ()) -> Option<usize> {
        self.queue.iter().position(|other| std::ptr::addr_eq(Arc::as_ptr(other), who))
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, inner: &Inner) {
        self.waiting.store(inner.queue.len() + usize::from(inner.woken), Ordering::SeqCst);
    }

    /// Does nobody wait?
    pub fn is_free(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Lets `who` be woken when there is room; before all others, if it was woken already and came too late. True: it is
    /// the first, and must look for room once more before it waits.
    pub fn wait(&self, who: Arc<dyn Wake>, again: bool) -> bool {
        let mut inner = self.lock();
        if again {
            inner.woken = false;
            inner.queue.push_front(who);
        } else {
            inner.queue.push_back(who);
        }
        let first = again || inner.queue.len() == 1 && !inner.woken;
        self.count(&inner);
        drop(inner);
        // Partner: the light side in `made`: either that sees us, or we see the room.
        barrier::heavy();
        first
    }

    /// Does it still wait, whom this address names?
    pub fn waits(&self, who: *const ()) -> bool {
        self.lock().place(who).is_some()
    }

    /// It waits no more: it has got in, or given up.
    pub fn leave(&self, who: *const ()) {
        let mut inner = self.lock();
        let place = inner.place(who);
        let it = place.and_then(|place| inner.queue.remove(place));
        self.count(&inner);
        drop(inner);
        if it.is_none() {
            self.next();
        }
    }

    /// The one that was woken has got in, or given up: there may be room for the next one.
    pub fn next(&self) {
        let mut inner = self.lock();
        inner.woken = false;
        self.count(&inner);
        drop(inner);
        self.wake_one();
    }

    /// There is room for one.
    #[inline]
    pub fn made(&self) {
        barrier::light();
        if !self.is_free() {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        let mut inner = self.lock();
        // **in order**. Room that is made before it has tried is seen by it, or by the next one.
        let first = if inner.woken { None } else { inner.queue.pop_front() };
        inner.woken |= first.is_some();
        self.count(&inner);
        drop(inner);
        first.inspect(|first| first.wake());
    }
}
