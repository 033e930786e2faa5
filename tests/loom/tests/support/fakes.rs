//! What `wasm::live` knows of fibers, strands and workers.

use std::marker::PhantomData;
use std::ops::Deref;

use loom::cell::UnsafeCell;
use models::sys::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::live::{Place, Places};

pub struct Strand;

/// What a worker keeps for those that it runs.
#[derive(Default)]
pub struct Local {
    pub places: Places,
}

/// A worker of this index. Only the thread that is it has it.
pub struct Worker<R> {
    index: usize,
    local: Local,
    _strand: PhantomData<R>,
}

impl<R> Worker<R> {
    pub fn new(index: usize) -> Worker<R> {
        Worker { index, local: Local::default(), _strand: PhantomData }
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn local(&self) -> &Local {
        &self.local
    }
}

/// A fiber whose memory outlives it, so that a use after its end can be seen and told.
pub struct Fiber {
    pub place: Place,
    references: AtomicUsize,
    /// Written at its end, read by all who use it before: loom sees if the two meet.
    ended: UnsafeCell<bool>,
}

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for Fiber {}
// SAFETY: as above.
unsafe impl Sync for Fiber {}

impl Default for Fiber {
    /// A fiber with one reference: its own.
    fn default() -> Fiber {
        Fiber { place: Place::default(), references: AtomicUsize::new(1), ended: UnsafeCell::new(false) }
    }
}

impl Fiber {
    fn touch(&self) {
        // SAFETY: loom checks it.
        assert!(!self.ended.with(|ended| unsafe { *ended }), "a fiber that is gone");
    }

    /// Drops the fiber's own reference.
    pub fn drop_own(&self) {
        // SAFETY: the caller is its owner, and does so once.
        drop(unsafe { Arc::from_raw(self) });
    }

    pub fn is_gone(&self) -> bool {
        self.references.load(Ordering::Acquire) == 0
    }
}

/// std's, of fibers: with its orders, but without freeing.
pub struct Arc<T: Counted>(*const T);

pub trait Counted {
    fn fiber(&self) -> &Fiber;
}

impl Counted for Fiber {
    fn fiber(&self) -> &Fiber {
        self
    }
}

impl<T: Counted> Arc<T> {
    /// # Safety
    ///
    /// As for std's.
    pub unsafe fn from_raw(this: *const T) -> Arc<T> {
        Arc(this)
    }

    /// # Safety
    ///
    /// As for std's: the fiber is alive. That is what is checked here.
    pub unsafe fn increment_strong_count(this: *const T) {
        // SAFETY: its memory is still there.
        let fiber = unsafe { (*this).fiber() };
        assert_ne!(fiber.references.fetch_add(1, Ordering::Relaxed), 0, "a reference to a fiber that is gone");
        fiber.touch();
    }
}

impl<T: Counted> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as above.
        unsafe { &*self.0 }
    }
}

impl<T: Counted> Drop for Arc<T> {
    fn drop(&mut self) {
        let fiber = self.fiber();
        fiber.touch();
        if fiber.references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: it was the last reference; loom checks it.
            fiber.ended.with_mut(|ended| unsafe { *ended = true });
        }
    }
}
