//! Threads beside the workers, for what blocks its thread.
//!
//! There are as many helpers as there are jobs under way, up to a limit; the rest queue up. A helper that has had nothing
//! to do for a while ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::clock;

/// How long a helper waits for something to do.
const LINGER: Duration = Duration::from_secs(1);

/// What a helper does.
pub trait Job: Send + Sync {
    /// Does it. It may block.
    fn run(&self);
}

/// The helpers of a runtime.
pub struct Helpers {
    most: usize,
    inner: Mutex<Inner>,
    /// A job is there for a helper, or it must go.
    work: Condvar,
    /// A helper has ended, or has nothing to do.
    rest: Condvar,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Arc<dyn Job>>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Helpers {
    /// Helpers for at most so many jobs at a time.
    pub fn new(most: usize) -> Arc<Helpers> {
        Arc::new(Helpers { most, inner: Mutex::default(), work: Condvar::new(), rest: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a job to a helper; false if there is none, and can't be one.
    pub fn submit(self: &Arc<Helpers>, job: Arc<dyn Job>) -> bool {
        let mut inner = self.lock();
        inner.jobs.push_back(job);
        if inner.idle >= inner.jobs.len() {
            self.work.notify_one();
            return true;
        }
        if inner.threads < self.most && !inner.closed {
            let helpers = Arc::clone(self);
            let thread = std::thread::Builder::new().name("bop-helper".into());
            if thread.spawn(move || helpers.help()).is_ok() {
                inner.threads += 1;
            }
        }
        // With others at work, it waits for one of those.
        let helped = inner.threads > 0;
        if !helped {
            inner.jobs.pop_back();
        }
        helped
    }

    /// Takes a job back that no helper has taken.
    pub fn withdraw(&self, job: *const ()) {
        let mut inner = self.lock();
        let at = inner.jobs.iter().position(|other| std::ptr::addr_eq(Arc::as_ptr(other), job));
        let job = at.and_then(|at| inner.jobs.remove(at));
        drop(inner);
        // It may hold the last reference to more.
        drop(job);
    }

    /// What a helper does.
    fn help(&self) {
        let mut inner = self.lock();
        loop {
            if let Some(job) = inner.jobs.pop_front() {
                drop(inner);
                job.run();
                drop(job);
                inner = self.lock();
                continue;
            }
            if inner.closed {
                break;
            }
            inner.idle += 1;
            self.rest.notify_all();
            let waited = self.work.wait_timeout(inner, LINGER).unwrap_or_else(PoisonError::into_inner);
            inner = waited.0;
            inner.idle -= 1;
            if waited.1.timed_out() && inner.jobs.is_empty() {
                break;
            }
        }
        inner.threads -= 1;
        self.rest.notify_all();
    }

    /// Lets the helpers go; false if some still have something to do at `deadline`.
    pub fn close(&self, deadline: u64) -> bool {
        let mut inner = self.lock();
        inner.closed = true;
        self.work.notify_all();
        while inner.threads > inner.idle || !inner.jobs.is_empty() {
            let left = deadline.saturating_sub(clock::now());
            if left == 0 {
                return false;
            }
            let waited = self.rest.wait_timeout(inner, Duration::from_nanos(left));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Calls under way and queued, and threads.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.threads - inner.idle + inner.jobs.len(), inner.threads)
    }
}
