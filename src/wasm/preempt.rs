//! Preemption: what happens at an epoch check.
//!
//! ```text
//!   ticker: engine.increment_epoch()         once a quantum, while somebody waits for a turn;
//!                                            more often while something is urgent
//!   guest:  epoch >= the store's deadline?   at function entries, loop heads, bulk operations
//!     └─► on_epoch: cancelled, or a limit reached, or its shadow stack used up?   trap
//!                   a host thread wants the store?     switch
//!                   slice over, and a sibling waits?   switch
//!                   turn over, and another strand waits?     switch
//!                   otherwise           go on, with a new deadline
//! ```
//!
//! The deadline is a word of the store, not of the fiber (W10). So a check may come early in a
//! fiber's turn; it compares the tick at which the turn began with the present one and goes on.

use std::mem::ManuallyDrop;

use wasmtime::{Error, Result, Store, StoreContextMut, UpdateDeadline};

use super::fiber::{self, Fiber};
use crate::fiber::switch::Suspend;

/// Makes a store's Wasm preemptible when it runs on a fiber. On a plain thread it just runs on.
pub fn install<T: 'static>(store: &mut Store<T>) {
    store.epoch_deadline_callback(on_epoch::<T>);
    // The first check asks for the length of a slice.
    store.set_epoch_deadline(0);
}

/// W6: Wasmtime takes the callback out of the store while it runs, and a store without one traps
/// at its next check. Puts it in again, so that siblings are preempted and not killed. (The box of
/// a function item needs no memory.)
fn install_again<T: 'static>(context: &mut StoreContextMut<'_, T>) {
    let inner = super::bridge::context_address(context);
    // SAFETY: `Store` is nothing but the box that `context` borrows from (`bridge` checks its size); the
    // copy lives only here, within that borrow, and is not dropped.
    let mut store: ManuallyDrop<Store<T>> = unsafe { std::mem::transmute_copy(&inner) };
    store.epoch_deadline_callback(on_epoch::<T>);
}

/// Slices that a guest's allocator may take, called for a stack, while others wait.
const ALLOCATOR_SLICES: u64 = 100;

enum Check {
    /// Goes on, for so many ticks.
    GoOn(u64),
    Trap(Error),
    Switch(*const Fiber),
}

/// Not inlined: it looks at thread-locals, and `on_epoch` goes on on another thread (W3).
#[inline(never)]
fn check() -> Check {
    let Some(fiber) = fiber::current() else { return Check::GoOn(1) };
    let (strand, shared) = (&fiber.strand, fiber.shared());
    if let Some(trap) = trap(fiber) {
        return Check::Trap(trap);
    }
    if fiber.no_switch.get() {
        let slices = shared.scheduler.tick() - fiber.resumed_at.get();
        if slices > ALLOCATOR_SLICES {
            return Check::Trap(Error::msg("the guest's allocator does not return"));
        }
        return Check::GoOn(shared.limits.ticks_per_slice());
    }
    let limits = &shared.limits;
    let slice_over = fiber.resumed_at.get() != shared.scheduler.tick();
    let waits = || strand.is_wanted() || strand.is_turn_over() && others_wait();
    // A host thread that wants the store, or this thread back, does not wait for the slice's end.
    let switch = limits.every_check || strand.doors.wanted() || must_leave() || slice_over && waits();
    if switch && strand.may_suspend() {
        return Check::Switch(fiber);
    }
    Check::GoOn(limits.ticks_per_slice())
}

/// What ends this fiber, if anything does.
fn trap(fiber: &Fiber) -> Option<Error> {
    if fiber.strand.has_meters() {
        fiber.strand.meter(fiber);
    }
    if fiber.cancelled() {
        return Some(Error::new(fiber.why_stopped()));
    }
    fiber.overrun_trap()
}

/// Must this worker leave?
fn must_leave() -> bool {
    // SAFETY: as below.
    fiber::worker().is_some_and(|worker| unsafe { (*worker).is_due() })
}

/// Does another strand wait for this worker?
fn others_wait() -> bool {
    // SAFETY: the worker of this thread outlives this call.
    fiber::worker().is_some_and(|worker| unsafe { (*worker).has_waiting() })
}

fn on_epoch<T: 'static>(mut context: StoreContextMut<'_, T>) -> Result<UpdateDeadline> {
    match check() {
        Check::GoOn(ticks) => Ok(UpdateDeadline::Continue(ticks)),
        Check::Trap(trap) => Err(trap),
        Check::Switch(fiber) => {
            install_again(&mut context);
            // SAFETY: the running fiber is this one, until it ends.
            let fiber = unsafe { &*fiber };
            fiber.suspend(Suspend::Preempt);
            let ticks = fiber.shared().limits.ticks_per_slice();
            trap(fiber).map_or(Ok(UpdateDeadline::Continue(ticks)), Err)
        }
    }
}
