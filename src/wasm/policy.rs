//! What a trap means to the other fibers of a store (W12).
//!
//! Wasmtime keeps an instance callable after a trap. Whether what is in its memory still makes sense
//! is for the host to say: by default a trap ends its own fiber only; in a store that is to be
//! *poisoned* it ends them all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::end::{End, Outcome};
use super::fiber::Fiber;
use super::strand::Strand;

/// The policy of a store, and what became of it.
#[derive(Default)]
pub struct Policy {
    /// Written under the lock of `poison`; read without it where a moment's delay does no harm.
    poisons: AtomicBool,
    /// The first trap, once there was one; never while `poisons` is false.
    poison: Mutex<Option<String>>,
}

impl Policy {
    /// Sets whether a trap poisons the store, from the next one on.
    pub fn set_poisons(&self, poisons: bool) {
        let mut poison = self.lock();
        self.poisons.store(poisons, Ordering::Relaxed);
        if !poisons {
            *poison = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the store takes no more fibers, if it does not.
    pub fn poison(&self) -> Option<String> {
        if !self.poisons.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().as_ref().map(|trap| format!("the store is poisoned: {trap}"))
    }
}

impl Strand {
    /// A fiber of this strand has ended, on the calling worker: poisons the store if that was by a
    /// trap, and it is to be so.
    pub fn apply_policy(&self, fiber: &Fiber, end: &End) {
        let policy = &self.policy;
        if end.outcome != Outcome::Trapped || !policy.poisons.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut poison = policy.lock();
            if !policy.poisons.load(Ordering::Relaxed) {
                return;
            }
            poison.get_or_insert_with(|| format!("{} trapped: {}", fiber.label(), words(end)));
        }
        // A fiber that is listed later finds the poison (`runtime::spawn`).
        self.cancel_all(Some(fiber));
    }
}

/// What the trap says, in one line.
fn words(end: &End) -> String {
    let trap = end.trap.lock().unwrap_or_else(PoisonError::into_inner);
    let error = trap.as_deref().map(super::bridge::error_of);
    error.map_or_else(String::new, |error| error.root_cause().to_string())
}
