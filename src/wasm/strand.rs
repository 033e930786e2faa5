//! A strand: a store with its fibers, or a single host fiber. What run queues hold and thieves steal.
//!
//! A turn: the worker owns the strand; it resumes one ready fiber after another, and gives the strand
//! up when none is ready, when the turn has been long enough and others wait, or when a fiber was
//! preempted. Between two fibers of one strand there is no atomic read-modify-write at all.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use wasmtime::Store;
use wasmtime_c_api::{WasmtimeStoreData, wasmtime_store_t};

use super::activation::{StoreWords, ThreadWord, Words};
use super::doors::Doors;
use super::fiber::Fiber;
use super::guest::Env;
use super::limits::{Meter, Metering, Stop, StoreDeadline};
use super::local::Local;
use super::policy::Policy;
use super::room::Room;
use super::shadow::Shadow;
use super::shared::Shared;
use super::signature::Signatures;
use super::{bridge, preempt};
use crate::fiber::switch::Suspend;
use crate::sched::mailbox::Mailbox;
use crate::sched::timers::Key;
use crate::sys::clock;
use crate::sched::{Runnable, Turn, Worker};

/// Fibers resumed in one turn while other strands wait. Makes up for what a turn costs; few enough
/// that a store of ten thousand fibers that yield is no burden to a store with one.
const TURN: u32 = 32;

/// Fibers that guests may spawn in a store for which the host has set no limit.
const GUEST_FIBERS: usize = 1 << 17;

/// Added to `users` for the handle of a store; below it are the fibers that have not ended.
const HANDLE: usize = 1 << (usize::BITS - 2);

/// See the head of this file. `Cell`s belong to the owner: the worker in a turn, a host thread that
/// has entered the store, or, before anybody else knows the strand, its maker.
pub struct Strand {
    pub mailbox: Mailbox<Fiber>,
    pub shared: Arc<Shared>,
    pub doors: Doors,
    pub policy: Policy,
    /// Fibers that have not ended, and whether there is a handle. The store is dropped when nobody
    /// uses it any more.
    users: AtomicUsize,
    /// The fiber that runs, or null. Only for those who look from outside.
    running: AtomicPtr<Fiber>,
    /// It was put into a run queue and has not had its turn since.
    queued: AtomicBool,
    /// Slices that one turn may last while others wait.
    weight: AtomicU32,
    /// The tick at which its present turn began.
    turn_began: Cell<u64>,

    store: UnsafeCell<Option<Box<wasmtime_store_t>>>,
    /// The number that this store's functions carry; 0 while there is no store.
    pub store_id: u64,
    /// The store's words, what they are while no fiber is loaded, and the fiber whose words they are
    /// now (invariant **loaded**: it has not ended; all others' words are in their `Fiber`).
    words: Cell<Option<StoreWords>>,
    base: Cell<Option<Words>>,
    loaded: Cell<*const Fiber>,
    /// No fiber is loaded, and the words are those of one that has ended: nobody's.
    stale: Cell<bool>,
    /// Those of the functions that were spawned.
    pub signatures: Signatures,

    /// The instances that its fibers share, and the largest stack that a fiber may ask for in them.
    pub shadows: UnsafeCell<Vec<Shadow>>,
    pub shadow_limit: AtomicU64,
    /// What the runtime keeps for the guests of this store. The owner's.
    pub guest: UnsafeCell<Option<Box<dyn Any + Send>>>,
    /// The host's descriptors that its guests have for standard input, output and errors; -1 for none.
    pub stdio: [AtomicI32; 3],
    /// Guards in guests' memories that had been opened, in the whole process, when it last looked.
    pub opened: Cell<u64>,
    /// What the set-up of the store was given; dropped after the store.
    env: UnsafeCell<Option<Env>>,
    /// The fiber that made the store, and with whose end its program ends; 0 for none.
    program: Cell<u64>,
    /// Why there may be no more fibers: the program has ended.
    ended: AtomicBool,
    /// Its deadline has passed.
    expired: AtomicBool,
    deadline: Mutex<Option<Key>>,
    /// When that is; `u64::MAX` for never.
    pub due: AtomicU64,
    /// What all its fibers use of their time on processors; and how many of it and them are metered.
    pub meter: Meter,
    pub is_metered: AtomicBool,
    pub metered: AtomicUsize,
    /// Of the fiber that runs. The owner's.
    pub metering: Cell<Metering>,
    /// Fibers that there may be at a time, and who waits for there to be fewer.
    max_fibers: AtomicUsize,
    pub room: Room,
    /// Fibers that lost their turn, and so may be in the middle of anything.
    pub preempted: Cell<usize>,
}

// SAFETY: as for `Fiber`: a field is immutable, atomic, locked, or the owner's. Ownership is handed over
// by the mailbox's flag, the run queues, or `Doors` (each a Release to an Acquire). The store is
// `Send`, and the owner alone uses it.
unsafe impl Sync for Strand {}
// SAFETY: as above.
unsafe impl Send for Strand {}

impl Strand {
    /// A strand for a single fiber: a host fiber, or one that makes its own store.
    pub fn single(shared: Arc<Shared>) -> Arc<Strand> {
        Arc::new(Strand::new(shared, 0))
    }

    fn new(shared: Arc<Shared>, store_id: u64) -> Strand {
        Strand {
            mailbox: Mailbox::default(),
            shared,
            doors: Doors::default(),
            policy: Policy::default(),
            users: AtomicUsize::new(0),
            running: AtomicPtr::default(),
            queued: AtomicBool::new(false),
            weight: AtomicU32::new(1),
            turn_began: Cell::new(0),
            store: UnsafeCell::new(None),
            store_id,
            words: Cell::new(None),
            base: Cell::new(None),
            loaded: Cell::new(null()),
            stale: Cell::new(false),
            signatures: Signatures::default(),
            shadows: UnsafeCell::default(),
            shadow_limit: AtomicU64::new(u64::MAX),
            guest: UnsafeCell::default(),
            stdio: [const { AtomicI32::new(-1) }; 3],
            opened: Cell::new(0),
            env: UnsafeCell::default(),
            program: Cell::new(0),
            ended: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            deadline: Mutex::default(),
            due: AtomicU64::new(u64::MAX),
            meter: Meter::default(),
            is_metered: AtomicBool::new(false),
            metering: Cell::default(),
            metered: AtomicUsize::new(0),
            room: Room::default(),
            max_fibers: AtomicUsize::new(usize::MAX),
            preempted: Cell::new(0),
        }
    }

    /// A strand for a store, with a handle. The store's engine is that of `shared`. The error says why
    /// the store can't be used here.
    pub fn with_store(
        shared: Arc<Shared>,
        mut own: Box<wasmtime_store_t>,
    ) -> Result<Arc<Strand>, String> {
        let store = bridge::store(&mut own);
        preempt::install(store);
        let any = wasmtime::Func::wrap(&mut *store, || {});
        // A store that was set up for Wasmtime's async calls refuses all others.
        any.call(&mut *store, &[], &mut []).map_err(|e| format!("the store can't be used: {e:#}"))?;
        // SAFETY: a live function.
        let mut strand = Strand::new(shared, unsafe { bridge::store_of(&any) });
        strand.set_words(StoreWords::of(&mut *store));
        *strand.users.get_mut() = HANDLE;
        *strand.store.get_mut() = Some(own);
        Ok(Arc::new(strand))
    }

    fn set_words(&self, words: StoreWords) {
        self.words.set(Some(words));
        // SAFETY: the store is ours and lives; no Wasm of its runs.
        self.base.set(Some(unsafe { words.read() }));
    }

    /// The running fiber, which is alone, has made a store: it is the strand's from now on, and so is what its
    /// set-up is given.
    pub fn adopt(&self, fiber: &Fiber, mut own: Box<wasmtime_store_t>, env: Env) {
        self.program.set(fiber.id);
        // SAFETY: the running fiber owns the strand.
        unsafe { *self.env.get() = Some(env) };
        let words = StoreWords::of(bridge::store(&mut own));
        // SAFETY: the running fiber owns the strand, and there was no store that anybody could use.
        unsafe { *self.store.get() = Some(own) };
        self.set_words(words);
        self.load(fiber);
    }

    /// The store.
    ///
    /// # Safety
    ///
    /// The caller is the owner, or a fiber of this strand that runs, and the strand has a store. As
    /// in Wasmtime's own C API, the references that suspended frames of other fibers hold are not
    /// used meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn store(&self) -> &mut Store<WasmtimeStoreData> {
        // SAFETY: per contract.
        unsafe { bridge::store((*self.store.get()).as_mut().unwrap_unchecked()) }
    }

    /// Counts one more fiber; the error says why there may be none.
    pub fn add_fiber(&self) -> Result<(), String> {
        let most = self.max_fibers.load(Ordering::Relaxed);
        if most == usize::MAX {
            self.users.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let more = |users: usize| (users & (HANDLE - 1) < most).then_some(users + 1);
        let added = self.users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        added.map(|_| ()).map_err(|_| format!("the store's limit of {most} fibers is reached"))
    }

    /// Counts one fiber less, which is not to come after all.
    pub fn take_back_fiber(&self) {
        self.remove_user(false);
        // Also if it was not the last: others that are on their way may be taken back at the same time.
        self.shared.look_instead();
    }

    /// Sets how many fibers there may be at a time.
    pub fn set_max_fibers(&self, most: usize) {
        self.max_fibers.store(most, Ordering::Relaxed);
        self.room.made();
    }

    /// May the guest spawn one more? It has a limit even if the host sets none.
    pub fn guest_may_spawn(&self) -> bool {
        let most = self.max_fibers.load(Ordering::Relaxed);
        self.fibers() < if most == usize::MAX { GUEST_FIBERS } else { most }
    }

    /// Why the store takes no more fibers, if it does not.
    pub fn closed(&self) -> Option<String> {
        if self.ended.load(Ordering::Relaxed) {
            return Some("the store's program has ended".into());
        }
        if self.expired.load(Ordering::Relaxed) {
            return Some("the store's deadline has passed".into());
        }
        self.policy.poison()
    }

    /// Cancels all fibers that live, but for one that is just ending; those that are spawned while it does so may be
    /// missed.
    pub fn cancel_all(&self, ending: Option<&Fiber>) {
        self.stop_all(Stop::Cancel, ending);
    }

    fn stop_all(&self, why: Stop, ending: Option<&Fiber>) {
        for fiber in self.shared.live.all(false) {
            let ours = std::ptr::eq(Arc::as_ptr(&fiber.strand), self);
            if ours && !ending.is_some_and(|ending| std::ptr::eq(&*fiber, ending)) {
                fiber.stop(why);
            }
        }
    }

    /// Ends all fibers, and lets no more come.
    pub fn stop_for_ever(&self, why: Stop) {
        // Who lists a fiber looks at this afterwards (`runtime::spawn`).
        self.expired.store(true, Ordering::SeqCst);
        self.stop_all(why, None);
        self.room.made();
    }

    /// Sets the host's descriptors for standard input, output and errors of its guests; -1 for none.
    pub fn set_stdio(&self, stdio: [i32; 3]) {
        self.stdio.iter().zip(stdio).for_each(|(place, fd)| place.store(fd, Ordering::Relaxed));
    }

    /// Has its deadline passed?
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Sets when all fibers shall end; `None`: never. A deadline that has passed stays so.
    pub fn set_deadline(self: &Arc<Strand>, deadline: Option<u64>) {
        let scheduler = &self.shared.scheduler;
        let mut key = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = key.take() {
            scheduler.timers.remove(key);
        }
        self.due.store(deadline.unwrap_or(u64::MAX), Ordering::Relaxed);
        if deadline.is_some_and(|deadline| deadline <= clock::now()) {
            drop(key);
            return self.stop_for_ever(Stop::Deadline);
        }
        *key = deadline.map(|deadline| scheduler.time(deadline, Arc::new(StoreDeadline(Arc::downgrade(self)))));
    }

    /// Sets what all fibers together may use of their time on processors from now on, in nanoseconds.
    pub fn set_budget(&self, budget: u64) {
        if !self.is_metered.swap(true, Ordering::Relaxed) {
            self.metered.fetch_add(1, Ordering::Relaxed);
        }
        self.meter.set_budget(self.meter.used().saturating_add(budget));
        // One that runs shall look up, and is metered from then on.
        self.shared.engine.increment_epoch();
    }

    /// Counts one fiber less, or the handle, and drops the store with the last user.
    pub fn remove_user(&self, handle: bool) {
        let n = if handle { HANDLE } else { 1 };
        // AcqRel: what all other users did happened before the drop.
        let left = self.users.fetch_sub(n, Ordering::AcqRel) - n;
        if left == 0 {
            if let Some(key) = self.deadline.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.shared.scheduler.timers.remove(key);
            }
            self.unload();
            // SAFETY: no fiber and no handle is left, so nobody can reach the store. The guards in its
            // memory go before it does.
            unsafe {
                (*self.shadows.get()).clear();
                // It may hold fibers of this strand, which hold the strand.
                drop((*self.guest.get()).take());
                drop((*self.store.get()).take());
                drop((*self.env.get()).take());
            }
        }
        self.room.made();
    }

    /// Fibers that have not ended.
    pub fn fibers(&self) -> usize {
        self.users.load(Ordering::Relaxed) & (HANDLE - 1)
    }

    /// Is this the context of the strand's store?
    pub fn is_store_of(&self, context: *mut bridge::wasmtime_context_t) -> bool {
        self.words.get().is_some_and(|words| words == StoreWords::of_context(context))
    }

    /// Does the store hold objects that a collection must find (W9)? Read from outside as well; the
    /// word is then a moment old.
    pub fn has_gc_heap(&self) -> bool {
        // SAFETY: the store lives while the strand has users, and whoever asks is one.
        self.words.get().is_some_and(|words| unsafe { words.gc_heap() } > 0)
    }

    /// May the running fiber be switched out? Not while a sibling could collect its roots (W9).
    #[inline]
    pub fn may_suspend(&self) -> bool {
        if !self.has_gc_heap() {
            return true;
        }
        // Partner: the fence of who adds a fiber and then looks for a heap (`runtime::spawn`).
        fence(Ordering::SeqCst);
        self.fibers() == 1
    }

    /// Puts the strand, which the caller owns, into a run queue.
    pub fn schedule(self: &Arc<Strand>, fresh: bool) {
        self.queued.store(true, Ordering::Relaxed);
        self.shared.scheduler.schedule(Arc::clone(self), fresh);
    }

    /// Does it wait for a worker to run it, and there is none?
    pub fn is_stranded(&self) -> bool {
        self.queued.load(Ordering::Relaxed) && self.shared.is_deserted()
    }

    /// Sets how many slices a turn may last while others wait.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// Has its turn lasted long enough, if others wait? The caller is its worker, or the fiber that runs.
    #[inline]
    pub fn is_turn_over(&self) -> bool {
        let slices = self.shared.scheduler.tick() - self.turn_began.get();
        slices >= u64::from(self.weight.load(Ordering::Relaxed))
    }

    /// Is this the fiber that runs?
    pub fn is_running(&self, fiber: &Fiber) -> bool {
        std::ptr::eq(self.running.load(Ordering::Relaxed), fiber)
    }

    /// Does the store wait for a fiber, or for a host thread, other than the one that runs?
    #[inline]
    pub fn is_wanted(&self) -> bool {
        // SAFETY: the caller is the running fiber, whose worker owns the strand.
        unsafe { self.mailbox.has_ready() || self.doors.wanted() }
    }

    /// Puts the words of `fiber` into the store (W4, W5, W7).
    #[inline]
    fn load(&self, fiber: &Fiber) {
        let (Some(words), Some(base)) = (self.words.get(), self.base.get()) else { return };
        let last = self.loaded.replace(fiber);
        if std::ptr::eq(last, fiber) {
            return;
        }
        // SAFETY: the caller owns the strand, so the store; **loaded** for `last`.
        unsafe {
            if let Some(last) = last.as_ref() {
                last.words.set(Some(words.read()));
            }
            let fresh = || Words::fresh(&base, fiber.stack_limit, fiber.guard);
            words.write(&fiber.words.get().unwrap_or_else(fresh));
            self.swap_pointers(last.as_ref(), Some(fiber), self.stale.take());
        }
    }

    /// Puts the store's own words back, so that it can be used on a plain thread. The caller owns
    /// the strand.
    pub fn unload(&self) {
        let (Some(words), Some(base)) = (self.words.get(), self.base.get()) else { return };
        // SAFETY: as in `load`.
        unsafe {
            let last = self.loaded.replace(null()).as_ref();
            if let Some(last) = last {
                last.words.set(Some(words.read()));
            } else if !self.stale.get() {
                return;
            }
            words.write(&base);
            self.swap_pointers(last, None, self.stale.take());
        }
    }

    /// Is a call of the store on the stack of the thread that has entered it?
    pub fn is_in_use(&self) -> bool {
        let (Some(words), Some(base)) = (self.words.get(), self.base.get()) else { return false };
        // SAFETY: the caller has entered, so the store is its own.
        !unsafe { words.read() }.same_call(&base)
    }

    #[inline(always)]
    fn resume(&self, fiber: &Fiber, worker: &Worker<Strand>, thread: ThreadWord) -> Option<Suspend> {
        self.load(fiber);
        if fiber.was_preempted.take() {
            self.preempted.set(self.preempted.get() - 1);
        }
        fiber.resumed_at.set(self.shared.scheduler.tick());
        worker.counters().count_switch();
        worker.local().fiber.set(fiber);
        self.running.store((&raw const *fiber).cast_mut(), Ordering::Relaxed);
        if self.has_meters() {
            self.meter(fiber);
        }
        // Whatever called `bop_run` may itself have Wasm on its stack.
        let outer = thread.get();
        // SAFETY: the pointer is that of the fiber's stack, which runs next; then that of this one.
        // We own the fiber: it came from the mailbox of the strand that we own.
        let why = unsafe {
            thread.set(fiber.activation.get());
            let why = fiber.resume();
            fiber.activation.set(thread.get());
            thread.set(outer);
            why
        };
        if self.metering.get() != Metering::Off {
            self.end_metering(fiber);
        }
        self.running.store(null_mut(), Ordering::Relaxed);
        worker.local().fiber.set(null());
        why
    }

    /// A fiber has ended.
    #[inline(never)]
    fn retire(&self, fiber: NonNull<Fiber>, worker: &Worker<Strand>) {
        // SAFETY: it came from our mailbox and holds the reference from `Fiber::start`, which is ours
        // to drop now.
        let fiber = unsafe { Arc::from_raw(fiber.as_ptr()) };
        if std::ptr::eq(self.loaded.get(), Arc::as_ptr(&fiber)) {
            self.loaded.set(null());
            self.stale.set(true);
        }
        self.unequip(&fiber);
        let shared = &self.shared;
        worker.counters().add_active(-1);
        // Before anybody can see that it has ended: who has joined it finds it counted.
        worker.counters().count_finished();
        // SAFETY: it has ended, and we are its owner.
        if let Some(end) = unsafe { fiber.end_as_owner() } {
            // Before anybody can see that it has ended: who has joined it finds the store poisoned.
            self.apply_policy(&fiber, end);
            if fiber.of_guest {
                // The guest that joins it is not told; the host has no handle.
                end.forget_trap();
            }
        }
        if self.program.get() == fiber.id && self.fibers() > 1 {
            // As when main returns. Its siblings run on this very thread, so none comes in between.
            self.ended.store(true, Ordering::Relaxed);
            self.cancel_all(Some(&fiber));
        }
        if fiber.meter.is_some() {
            self.metered.fetch_sub(1, Ordering::Relaxed);
        }
        shared.live.vacate();
        // The store goes with its last user, before who has joined that one can look.
        self.remove_user(false);
        // SAFETY: it has ended, and we are its owner.
        if unsafe { fiber.retire(worker) } {
            shared.scheduler.unurge();
        }
        // Last: whoever waits until no fiber is left finds all of them ended and their stores gone.
        shared.live.unlist(&fiber, Some(worker));
        if self.fibers() == 0 {
            // Else another one will look: it leaves later, or does not come after all.
            shared.look_for_the_end();
        }
    }

    /// Nothing is ready. True: the strand is no longer ours.
    #[inline(never)]
    fn rest(&self) -> bool {
        if self.doors.hand_over() {
            return true;
        }
        // SAFETY: we own the strand, and its ready list is empty: `pop` has just said so.
        if !unsafe { self.mailbox.release() } {
            return false;
        }
        // A host thread may have queued up while we were still the owner.
        !self.doors.wanted_fenced() || !self.mailbox.claim() || self.doors.hand_over()
    }
}

impl Runnable for Strand {
    type Local = Local;

    fn rest(local: &Local) {
        local.stacks.flush();
        local.places.flush();
    }

    #[inline(always)]
    fn run(this: &Arc<Strand>, worker: &Worker<Strand>) -> Turn {
        this.queued.store(false, Ordering::Relaxed);
        worker.local().strand.set(Arc::as_ptr(this));
        let turn = this.turn(worker);
        // Ownership was given up just before this; nothing on this thread has asked for it since.
        worker.local().strand.set(null());
        turn
    }
}

impl Strand {
    #[inline(always)]
    fn turn(&self, worker: &Worker<Strand>) -> Turn {
        let (this, thread) = (self, ThreadWord::here());
        let scheduler = &this.shared.scheduler;
        let (mailbox, counters) = (&this.mailbox, worker.counters());
        this.turn_began.set(scheduler.tick());
        let weight = this.weight.load(Ordering::Relaxed);
        let mut left = TURN * weight;
        loop {
            // SAFETY: we own the strand during its turn; here and below.
            let Some(next) = (unsafe { mailbox.pop() }) else {
                if this.rest() {
                    return Turn::Idle;
                }
                continue;
            };
            // SAFETY: a fiber in a mailbox is alive.
            let fiber = unsafe { next.as_ref() };
            let mut turn_over = false;
            match this.resume(fiber, worker, thread) {
                Some(Suspend::Yield) => {
                    // SAFETY: as above; the fiber is in no list.
                    unsafe {
                        // Alone, it gives its turn to other strands.
                        turn_over = !mailbox.has_ready();
                        mailbox.push(next);
                    }
                }
                Some(Suspend::Preempt) => {
                    counters.count_preemption();
                    fiber.was_preempted.set(true);
                    this.preempted.set(this.preempted.get() + 1);
                    // SAFETY: as above.
                    unsafe { mailbox.push(next) };
                    if this.doors.hand_over() {
                        return Turn::Idle;
                    }
                    // With one slice a turn, that was it.
                    if weight == 1 || this.is_turn_over() || worker.is_due() {
                        return Turn::Preempted;
                    }
                }
                Some(Suspend::Park) => {
                    counters.count_park();
                    // Once parked, it belongs to whoever signals it: count first.
                    counters.add_active(-1);
                    if !fiber.word.commit_park() {
                        // Like any other that becomes active: the ticker may just have looked.
                        scheduler.active(1);
                        // SAFETY: as above; it was not parked, so it is still ours.
                        unsafe { mailbox.push(next) };
                    }
                }
                None => this.retire(next, worker),
            }
            if this.doors.wanted() && this.doors.hand_over() {
                return Turn::Idle;
            }
            left -= 1;
            if turn_over {
                return Turn::Again;
            }
            if left == 0 || this.is_turn_over() || worker.is_due() {
                // SAFETY: as above.
                if unsafe { mailbox.has_ready() } && worker.has_waiting() {
                    return Turn::Again;
                }
                left = TURN * weight;
            }
        }
    }
}
