//! Host threads that want a store for themselves between two turns of its fibers.
//!
//! Whoever owns the strand hands it to the first thread in the queue, in place of putting it back
//! into a run queue. A thread queues up and then tries to claim the strand; an owner gives the strand
//! up and then looks at the queue; `SeqCst` fences between the two on both sides make one of them see
//! the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::end::{Event, Wake};
use super::strand::Strand;
use crate::sys::clock;

/// How often a thread that waits looks whether there is still a worker, in nanoseconds.
const LOOK: u64 = 10_000_000;

/// The queue of a strand, and who holds it.
#[derive(Default)]
pub struct Doors {
    waiting: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Event>>>,
    /// The thread that has entered, 0 for none.
    holder: AtomicU64,
}

/// The kernel's number of the calling thread: nothing to cache, nothing thread-local.
pub fn this_thread() -> u64 {
    // SAFETY: no arguments, can't fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u64 }
}

impl Doors {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a host thread wait for the store?
    #[inline]
    pub fn wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// The same, after giving the strand up.
    pub fn wanted_fenced(&self) -> bool {
        // Partner: the fence in `queue_up`.
        fence(Ordering::SeqCst);
        self.wanted()
    }

    /// Hands the strand, which the caller owns, to the first thread that waits. False: none does.
    pub fn hand_over(&self) -> bool {
        if !self.wanted() {
            return false;
        }
        let next = {
            let mut queue = self.lock();
            let next = queue.pop_front();
            self.waiting.store(queue.len(), Ordering::Relaxed);
            next
        };
        // The event hands over what the owner did (Release to Acquire).
        next.inspect(|event| event.wake()).is_some()
    }

    /// Takes a thread out of the queue; false if the strand has been handed to it.
    fn withdraw(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.lock();
        let at = queue.iter().position(|e| Arc::ptr_eq(e, event));
        let found = at.and_then(|at| queue.remove(at)).is_some();
        self.waiting.store(queue.len(), Ordering::Relaxed);
        found
    }

    /// Has the calling thread entered?
    pub fn held_here(&self) -> bool {
        self.holder.load(Ordering::Relaxed) == this_thread()
    }
}

impl Strand {
    /// Waits until the calling host thread owns the strand. It must not own it already. The error
    /// says that this would be never, as far as can be seen.
    pub fn enter(&self) -> Result<(), String> {
        if !self.mailbox.claim() && !self.queue_up() {
            return Err("fibers of the store are ready, and no worker runs them: start the runtime, or \
                        enter the store before spawning"
                .into());
        }
        self.doors.holder.store(this_thread(), Ordering::Relaxed);
        self.shared.threads_inside().push(this_thread());
        self.unload();
        Ok(())
    }

    /// Waits in the queue. False: the strand is in a run queue, and there is no worker.
    fn queue_up(&self) -> bool {
        if self.is_stranded() {
            return false;
        }
        let event = Arc::new(Event::default());
        {
            let mut queue = self.doors.lock();
            queue.push_back(Arc::clone(&event));
            self.doors.waiting.store(queue.len(), Ordering::Relaxed);
        }
        // Partner: the fence in `wanted_fenced`.
        fence(Ordering::SeqCst);
        if self.mailbox.claim() {
            // Only an owner hands over, and that is us: our event is still in the queue.
            self.doors.withdraw(&event);
            return true;
        }
        // A fiber that runs on must look up.
        self.shared.scheduler.urge();
        self.shared.engine.increment_epoch();
        let mut stranded = false;
        while !stranded && !event.wait(Some(clock::now() + LOOK)) {
            // It may have been queued, and the last worker have left, since we looked.
            stranded = self.is_stranded() && self.doors.withdraw(&event);
        }
        self.shared.scheduler.unurge();
        !stranded
    }

    /// The calling thread has entered one store fewer.
    pub fn forget_thread(&self) {
        let mut inside = self.shared.threads_inside();
        if let Some(at) = inside.iter().position(|&thread| thread == this_thread()) {
            inside.swap_remove(at);
        }
    }

    /// Gives up the strand that the calling host thread has entered. Its fibers come first, if there
    /// is a worker; further threads that wait get it when one of them has had a turn. The error says
    /// that the thread is still in the middle of a call of the store.
    pub fn exit(self: &Arc<Strand>) -> Result<(), String> {
        if self.is_in_use() {
            return Err("a call of the store is still on this thread's stack".into());
        }
        self.doors.holder.store(0, Ordering::Relaxed);
        self.forget_thread();
        // What ran on this thread was given a slice (`preempt`), which is none of the fibers'.
        // SAFETY: this thread owns the strand, which was made with a store.
        unsafe { self.store() }.set_epoch_deadline(0);
        loop {
            // SAFETY: this thread owns the strand.
            let ready = unsafe { self.mailbox.has_ready() };
            if ready && !self.shared.is_deserted() {
                self.schedule(false);
                return Ok(());
            }
            if self.doors.hand_over() {
                return Ok(());
            }
            if ready {
                self.schedule(false);
                return Ok(());
            }
            // SAFETY: as above, and nothing is ready.
            if unsafe { self.mailbox.release() } {
                if self.doors.wanted_fenced() && self.mailbox.claim() {
                    continue;
                }
                return Ok(());
            }
        }
    }
}
