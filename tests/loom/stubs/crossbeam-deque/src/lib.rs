//! As much of crossbeam-deque as `sched` uses, made of one count that loom sees.
//!
//! What counts here is when a queue is *seen* to hold something; the real crate's orders for that are kept:
//!
//! * `Injector::push` and `is_empty`, and what takes: `SeqCst` accesses of one word;
//! * `Worker::push`: a release store; `Stealer::is_empty`: a `SeqCst` fence, then a load.
//!
//! The items themselves are moved within the step that counts them: loom switches threads at its own operations only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use traced::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use traced::atomic::{AtomicUsize, fence};

struct Queue<T> {
    count: AtomicUsize,
    items: Mutex<VecDeque<T>>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Queue { count: AtomicUsize::new(0), items: Mutex::default() }
    }

    fn take(&self, n: usize) -> Vec<T> {
        self.items.lock().unwrap().drain(..n).collect()
    }

    /// Takes as many as `share` says of those that are there; may miss what has just come.
    fn take_some(&self, share: impl Fn(usize) -> usize) -> Vec<T> {
        let mut count = self.count.load(Acquire);
        while count > 0 {
            let n = share(count);
            match self.count.compare_exchange(count, count - n, SeqCst, Relaxed) {
                Ok(_) => return self.take(n),
                Err(now) => count = now,
            }
        }
        Vec::new()
    }

    /// Takes half; the first is returned, the others go to `to`.
    fn steal(&self, to: &Worker<T>) -> Steal<T> {
        let mut stolen = self.take_some(|count| count.div_ceil(2)).into_iter();
        let Some(first) = stolen.next() else { return Steal::Empty };
        stolen.for_each(|item| to.push(item));
        Steal::Success(first)
    }
}

/// What came of a theft.
pub enum Steal<T> {
    Empty,
    Success(T),
    /// Never here: it would say nothing new.
    Retry,
}

/// The queue that is everybody's.
pub struct Injector<T>(Queue<T>);

impl<T> Injector<T> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Injector(Queue::new())
    }

    pub fn push(&self, item: T) {
        self.0.count.fetch_add(1, SeqCst);
        self.0.items.lock().unwrap().push_back(item);
    }

    pub fn is_empty(&self) -> bool {
        self.0.count.load(SeqCst) == 0
    }

    pub fn steal_batch_and_pop(&self, to: &Worker<T>) -> Steal<T> {
        self.0.steal(to)
    }
}

/// A queue of one worker.
pub struct Worker<T>(Arc<Queue<T>>);

impl<T> Worker<T> {
    pub fn new_fifo() -> Self {
        Worker(Arc::new(Queue::new()))
    }

    pub fn stealer(&self) -> Stealer<T> {
        Stealer(Arc::clone(&self.0))
    }

    pub fn push(&self, item: T) {
        self.0.count.fetch_add(1, Release);
        self.0.items.lock().unwrap().push_back(item);
    }

    pub fn pop(&self) -> Option<T> {
        self.0.take_some(|_| 1).pop()
    }

    pub fn is_empty(&self) -> bool {
        self.0.count.load(Relaxed) == 0
    }
}

/// The other end of it.
pub struct Stealer<T>(Arc<Queue<T>>);

impl<T> Stealer<T> {
    pub fn is_empty(&self) -> bool {
        fence(SeqCst);
        self.0.count.load(Acquire) == 0
    }

    pub fn steal_batch_and_pop(&self, to: &Worker<T>) -> Steal<T> {
        self.0.steal(to)
    }
}
