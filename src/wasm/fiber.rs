//! A fiber: its state word, its stack, what it runs. (`end`: what came of it, and who waits for that.)

use std::cell::{Cell, UnsafeCell};
use std::ptr::{NonNull, null};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::activation::Words;
use super::end::{Abandon, End, Joiners, Outcome, Wake};
use super::guest::Call;
use super::limits::{Meter, Stop};
use super::live::Place;
use super::local;
use super::shadow::Frame;
use super::shared::Shared;
use super::strand::Strand;
use crate::fiber::stack::Stack;
use crate::fiber::state::{Signal, Signalled, Word};
use crate::fiber::switch::{Context, Suspend, Suspender};
use crate::sched::mailbox::Linked;
use crate::sched::timers::{Expire, Key};
use crate::sched::Worker;
use crate::sys::clock;

/// What a fiber runs. It is called, once, on the fiber's own stack; if the fiber was cancelled
/// before, it must do nothing but clean up.
pub enum Body {
    /// A call of a guest, which is worth having without a box.
    Call(Call),
    Other(Box<dyn FnOnce(&Fiber) -> End + Send>),
}

impl Body {
    fn run(self, fiber: &Fiber) -> End {
        match self {
            Body::Call(call) => call.run(fiber),
            Body::Other(body) => body(fiber),
        }
    }
}

/// When a fiber was spawned, first run, and ended; `CLOCK_MONOTONIC`, 0 = not yet.
#[derive(Default)]
pub struct Times {
    pub spawned: AtomicU64,
    pub started: AtomicU64,
    pub finished: AtomicU64,
}

/// See the head of this file. `fiber::state` says at which time who owns a fiber; fields that are
/// `Cell`s belong to the owner.
pub struct Fiber {
    link: AtomicPtr<Fiber>,
    pub word: Word,
    pub strand: Arc<Strand>,
    pub id: u64,
    pub name: Box<str>,
    /// A guest has spawned it.
    pub of_guest: bool,
    /// Where `Live` has it.
    pub place: Place,
    pub times: Times,

    /// `None` once it has ended.
    context: UnsafeCell<Option<Context>>,
    /// The fiber's end of the switch. Set on its first entry, used on its own stack only.
    suspender: Cell<Suspender>,
    body: Cell<Option<Body>>,
    /// The tick at which its present turn began.
    pub resumed_at: Cell<u64>,
    /// Why it shall end, as the number of a `Stop`; 0 for no reason.
    stopped: AtomicU8,
    /// When it shall end at the latest. Set by its maker, and taken by its owner at its end.
    pub deadline: Cell<Option<Key>>,
    /// The number of the timer that has fired last, of those that wake it.
    pub fired: AtomicU64,
    /// What it uses of its time on a processor, if that is metered.
    pub meter: Option<Box<Meter>>,
    /// It has been told that it is cancelled: by a trap, or by the result of a blocking call.
    told: Cell<bool>,
    /// The activation pointer of its stack, while it does not run (W1).
    pub activation: Cell<usize>,
    /// The store's words of its stack, while another stack's are in the store; `None` before its
    /// first turn (W4).
    pub words: Cell<Option<Words>>,
    /// Wasm's limit on its stack, and the addresses of the guard below it.
    pub stack_limit: usize,
    pub guard: (usize, usize),
    /// Its stacks in the instances that it shares with others. The fiber's itself, and its owner's.
    pub frames: UnsafeCell<SmallVec<[Frame; 1]>>,
    /// It has left one of them. Set on the thread that runs it, perhaps in a signal handler.
    pub overran: AtomicBool,
    /// What it holds and others may wait for. The fiber's itself.
    held: UnsafeCell<Vec<Arc<dyn Abandon>>>,
    /// It must keep its turn: it is in the guest's allocator.
    pub no_switch: Cell<bool>,
    /// It lost its turn, and is counted so in its strand.
    pub was_preempted: Cell<bool>,

    /// Written by the fiber at its end, read by anybody once `word` says FINISHED.
    end: UnsafeCell<Option<End>>,
    joiners: Mutex<Joiners>,
    /// A fiber of the same strand that waits for the end, or null: it takes no lock to say so. It has not ended
    /// while it is named here. It belongs to the strand's owner, who need not be the fiber's: that may be parked.
    pub sibling: Cell<*const Fiber>,
}

// SAFETY: every field is either immutable, atomic or locked; or a `Cell` that only the fiber's owner
// touches (or its strand's: `sibling`; or who lists it: `place`), and ownership is handed over by `word`, by the mailbox and by the run queues (each a
// Release to an Acquire); or `end`, which is published by `word`. A new field must be one of these.
unsafe impl Sync for Fiber {}
// SAFETY: as above; what a body captured is `Send`, and what is on the stack is what hosts and
// Wasmtime put there: `docs/host-code.md` tells hosts that it moves between threads.
unsafe impl Send for Fiber {}

// SAFETY: `link` is one word, used for nothing else; whoever puts a fiber into a mailbox knows that
// it has not ended, and a fiber that has not ended holds a reference to itself (`start`).
unsafe impl Linked for Fiber {
    fn link(&self) -> &AtomicPtr<Fiber> {
        &self.link
    }
}

impl Fiber {
    /// A fiber that is ready to be started.
    pub fn new(
        strand: Arc<Strand>,
        name: &str,
        stack: Stack,
        body: Body,
        of_guest: bool,
        meter: Option<Box<Meter>>,
        worker: Option<&Worker<Strand>>,
    ) -> Arc<Fiber> {
        let shared = &strand.shared;
        let fiber = Arc::new(Fiber {
            link: AtomicPtr::default(),
            word: Word::default(),
            id: shared.next_id(worker),
            name: name.into(),
            of_guest,
            place: Place::default(),
            times: Times::default(),
            context: UnsafeCell::new(None),
            suspender: Cell::new(Suspender::dangling()),
            body: Cell::new(Some(body)),
            resumed_at: Cell::new(0),
            stopped: AtomicU8::new(0),
            deadline: Cell::new(None),
            fired: AtomicU64::new(0),
            meter,
            told: Cell::new(false),
            activation: Cell::new(0),
            words: Cell::new(None),
            stack_limit: stack.bottom() + shared.limits.host_stack,
            guard: stack.guard(),
            frames: UnsafeCell::default(),
            overran: AtomicBool::new(false),
            held: UnsafeCell::default(),
            no_switch: Cell::new(false),
            was_preempted: Cell::new(false),
            end: UnsafeCell::new(None),
            joiners: Mutex::default(),
            sibling: Cell::new(null()),
            strand,
        });
        fiber.note(&fiber.times.spawned);
        // SAFETY: the fiber outlives its context: it holds a reference to itself until `entry` has
        // returned. `entry` does not unwind.
        let context = unsafe { Context::new(stack, entry, Arc::as_ptr(&fiber).cast()) };
        // SAFETY: nobody else knows the fiber yet.
        unsafe { *fiber.context.get() = Some(context) };
        fiber
    }

    /// What it shares with the other fibers of its runtime.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.strand.shared
    }

    /// Gives up a fiber that was never started. Whoever has found it in the list may cancel it meanwhile.
    pub fn discard(&self) {
        // SAFETY: it never runs, so nobody else writes this; `finish` publishes it.
        unsafe { *self.end.get() = Some(End::plain(Outcome::Failed)) };
        if self.word.finish().cancelled {
            self.shared().scheduler.unurge();
        }
        self.body.take();
        // SAFETY: nobody else touches it. Its context has never run, so nothing is on its stack
        // that would have to be unwound.
        unsafe { Context::discard((*self.context.get()).take()) };
    }

    /// Makes it run. It holds a reference to itself from now on, until it has ended.
    pub fn start(self: &Arc<Fiber>, worker: Option<&Worker<Strand>>) {
        // SAFETY: not null.
        let this = unsafe { NonNull::new_unchecked(Arc::into_raw(Arc::clone(self)).cast_mut()) };
        self.enqueue(this, worker, true);
    }

    /// Signals the fiber, and enqueues it if that woke it. Whoever calls this holds a reference.
    pub fn signal(&self, signal: Signal) -> Signalled {
        let signalled = self.word.signal(signal);
        if signalled == Signalled::Enqueue {
            let worker = self.shared().scheduler.worker_here();
            worker.inspect(|worker| worker.counters().count_wake());
            self.enqueue(NonNull::from(self), worker, false);
        }
        signalled
    }

    /// Puts it into its strand's mailbox. It may run and end at once, but the caller's reference
    /// keeps all that is used here.
    fn enqueue(&self, this: NonNull<Fiber>, worker: Option<&Worker<Strand>>, fresh: bool) {
        self.shared().scheduler.active_at(worker, 1);
        if worker.is_some_and(|worker| worker.local().owns(&self.strand)) {
            // SAFETY: this thread owns the strand; the fiber is in no list (**one waker**).
            unsafe { self.strand.mailbox.push(this) };
        } else if self.strand.mailbox.post(this) {
            self.strand.schedule(fresh);
        }
    }

    /// Cancels the fiber; false if it has ended.
    pub fn cancel(&self) -> bool {
        self.stop(Stop::Cancel)
    }

    /// Makes the fiber end: its blocking calls return, and Wasm traps at its next epoch check. False if it has ended.
    pub fn stop(&self, why: Stop) -> bool {
        let shared = self.shared();
        // Whoever sees the signal sees a reason (Release in `signal`).
        let _ = self.stopped.compare_exchange(0, why as u8, Ordering::Relaxed, Ordering::Relaxed);
        match self.signal(Signal::Cancel) {
            Signalled::Finished => return false,
            Signalled::Again => return true,
            Signalled::Noted | Signalled::Enqueue => {}
        }
        // Ticks until it has ended (`retire`): an epoch check that is under way just now may miss
        // this one.
        shared.scheduler.urge();
        shared.engine.increment_epoch();
        true
    }

    /// Has it been cancelled? If so it knows now. Only the fiber itself calls this.
    #[inline]
    pub fn cancelled(&self) -> bool {
        let cancelled = self.word.cancelled();
        if cancelled && !self.told.replace(true) {
            // The canceller may not have come to this yet, and Wasm must trap at its very next check.
            self.shared().engine.increment_epoch();
        }
        cancelled
    }

    /// Has a deadline passed before it began? Nobody may have looked at the timers: there was no worker.
    fn look_at_deadlines(&self) {
        let own = self.deadline.get().map_or(u64::MAX, |key| key.0);
        let deadline = own.min(self.strand.due.load(Ordering::Relaxed));
        if deadline != u64::MAX && deadline <= clock::now() {
            self.stop(Stop::Deadline);
        }
    }

    /// Why it was cancelled.
    pub fn why_stopped(&self) -> Stop {
        Stop::of(self.stopped.load(Ordering::Relaxed)).unwrap_or(Stop::Cancel)
    }

    /// The end of a fiber that was cancelled.
    pub fn stopped_outcome(&self) -> Outcome {
        match self.why_stopped() {
            Stop::Cancel => Outcome::Cancelled,
            Stop::Deadline => Outcome::TimedOut,
            Stop::Budget => Outcome::OutOfBudget,
        }
    }

    /// Does it know that it was cancelled? Only the fiber itself calls this.
    pub fn told(&self) -> bool {
        self.told.get()
    }

    /// Switches to the worker; returns when it is the fiber's turn again, perhaps on another
    /// thread. Only the fiber itself calls this.
    #[inline]
    pub fn suspend(&self, why: Suspend) {
        // SAFETY: the suspender was made for this fiber's stack, and that is where we are.
        unsafe { self.suspender.get().suspend(why) }
    }

    /// Runs it until it suspends or ends.
    ///
    /// # Safety
    ///
    /// The caller is a worker, owns the fiber, and has loaded its activation.
    #[inline(always)]
    pub unsafe fn resume(&self) -> Option<Suspend> {
        // SAFETY: the owner alone touches `context`; it is there until the end.
        unsafe { (*self.context.get()).as_mut().unwrap_unchecked().resume() }
    }

    /// Gives back the stack of a fiber that has ended, publishes its end, and wakes who waits for
    /// it. True if it had been cancelled.
    ///
    /// # Safety
    ///
    /// The caller is the worker to which the fiber's `resume` said that it has ended.
    pub unsafe fn retire(&self, worker: &Worker<Strand>) -> bool {
        // SAFETY: the owner alone touches `context`.
        let context = unsafe { (*self.context.get()).take() };
        if let Some(stack) = context.and_then(Context::into_stack) {
            // SAFETY: the worker runs in the scheduler that lives beside the pool, and flushes before
            // it leaves.
            unsafe { worker.local().stacks.put(&self.shared().pool, stack) }
        }
        if let Some(key) = self.deadline.take() {
            self.shared().scheduler.timers.remove(key);
        }
        self.note(&self.times.finished);
        let finish = self.word.finish();
        // SAFETY: it has not ended, and runs on this thread or not at all.
        if let Some(sibling) = unsafe { self.sibling.replace(null()).as_ref() } {
            sibling.wake();
        }
        if finish.joined {
            let joiners = std::mem::take(&mut *self.lock_joiners());
            joiners.one.iter().chain(&joiners.more).for_each(|joiner| joiner.wake());
        }
        finish.cancelled
    }

    fn lock_joiners(&self) -> MutexGuard<'_, Joiners> {
        self.joiners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `joiner` be woken at the end; false if the fiber has ended.
    #[must_use]
    pub fn add_joiner(&self, joiner: Arc<dyn Wake>) -> bool {
        let mut joiners = self.lock_joiners();
        // Under the lock, which `retire` takes when it sees this.
        let live = self.word.join();
        match &joiners.one {
            _ if !live => {}
            None => joiners.one = Some(joiner),
            Some(_) => joiners.more.push(joiner),
        }
        live
    }

    /// Takes a joiner back, which is named by its address.
    pub fn remove_joiner(&self, joiner: *const ()) {
        let is_it = |j: &Arc<dyn Wake>| std::ptr::addr_eq(Arc::as_ptr(j), joiner);
        let mut joiners = self.lock_joiners();
        let one = joiners.one.take_if(|j| is_it(j));
        let at = joiners.more.iter().position(is_it).filter(|_| one.is_none());
        let more = at.map(|at| joiners.more.swap_remove(at));
        drop(joiners);
        // The last reference may go with it, and takes its time.
        drop((one, more));
    }

    /// What came of it; `None` while it lives.
    pub fn end(&self) -> Option<&End> {
        // SAFETY: FINISHED says that `end` is written (Release to Acquire) and stays as it is.
        self.word.finished().then(|| unsafe { (*self.end.get()).as_ref().unwrap_unchecked() })
    }

    /// The same, before it is published.
    ///
    /// # Safety
    ///
    /// The caller is the worker to which the fiber's `resume` said that it has ended.
    pub unsafe fn end_as_owner(&self) -> Option<&End> {
        // SAFETY: the fiber has written it, and the owner alone reads it so early.
        unsafe { (*self.end.get()).as_ref() }
    }

    /// It holds this from now on. Only the fiber itself calls this.
    pub fn holds(&self, what: Arc<dyn Abandon>) {
        // SAFETY: the fiber's own, and borrowed by nobody: nothing here calls out.
        unsafe { (*self.held.get()).push(what) }
    }

    /// It gives up what it holds, which is named by its address. Only the fiber itself calls this.
    pub fn holds_no_more(&self, what: *const ()) {
        // SAFETY: as above. What is taken out is dropped after the borrow.
        let held = unsafe { &mut *self.held.get() };
        let at = held.iter().rposition(|held| std::ptr::addr_eq(Arc::as_ptr(held), what));
        drop(at.map(|at| held.swap_remove(at)));
    }

    /// It ends, and leaves to others what it still holds.
    fn abandon(&self) {
        // SAFETY: as above.
        let held = unsafe { std::mem::take(&mut *self.held.get()) };
        held.iter().for_each(|held| held.abandon());
    }

    fn note(&self, time: &AtomicU64) {
        if self.strand.shared.limits.timing {
            time.store(clock::now(), Ordering::Relaxed);
        }
    }

    /// How messages name it.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            return format!("fiber {}", self.id);
        }
        format!("fiber {} \"{}\"", self.id, self.name)
    }
}

/// The first frame on a fiber's stack.
unsafe fn entry(fiber: *const (), suspender: Suspender) {
    // SAFETY: `Fiber::new` passes its fiber, which lives until this function has returned.
    let fiber = unsafe { &*fiber.cast::<Fiber>() };
    fiber.suspender.set(suspender);
    fiber.note(&fiber.times.started);
    fiber.look_at_deadlines();
    let body = fiber.body.take();
    let run = std::panic::AssertUnwindSafe(|| body.map(|body| body.run(fiber)));
    let end = match std::panic::catch_unwind(run) {
        Ok(end) => end.unwrap_or_else(|| End::plain(Outcome::Failed)),
        Err(panic) => End::panicked(panic),
    };
    fiber.abandon();
    // SAFETY: the fiber is running, so it alone touches this; `retire` publishes it.
    unsafe { *fiber.end.get() = Some(end) };
}

impl Wake for Fiber {
    fn wake(&self) {
        self.signal(Signal::Wake);
    }
}

impl Expire for Fiber {
    fn expire(&self, timer: Key) {
        // A hint: whoever does not see it yet finds no timer.
        self.fired.store(timer.1, Ordering::Relaxed);
        self.signal(Signal::Wake);
    }
}

/// The worker that this thread is, whatever its runtime.
#[inline]
pub fn worker() -> Option<*const Worker<Strand>> {
    // SAFETY: all workers of this library run strands.
    unsafe { Worker::<Strand>::current() }
}

/// The fiber that calls. It stays valid until it ends; the thread may change at each suspension.
#[inline]
pub fn current<'a>() -> Option<&'a Fiber> {
    // SAFETY: a running fiber is alive.
    local::here().and_then(|local| unsafe { local.fiber.get().as_ref() })
}
