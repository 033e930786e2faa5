//! Whose turn it is to use a store's WASI.
//!
//! A fiber takes the turn when its call has to wait, and keeps it while it is suspended. It hands it on to the sibling that
//! has waited longest, so nobody who calls again and again keeps the others out.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmtime::Result;
use wasmtime_wasi::p1::WasiP1Ctx;

use super::refused;
use crate::runtime::guest::held;
use crate::runtime::sync::queue::{Fate, Node};
use crate::runtime::wait::Waiter;
use crate::wasm::fiber::Fiber;

/// The WASI, by their addresses, that calls of suspended fibers hold: for those who are none of the store's fibers.
static HELD: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

fn all_held() -> MutexGuard<'static, BTreeSet<usize>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does a suspended fiber's call hold this WASI?
pub fn is_held(wasi: NonNull<WasiP1Ctx>) -> bool {
    all_held().contains(&wasi.addr().get())
}

/// The turn of a fiber's call, until dropped; on the fiber itself.
pub struct Turn {
    /// `None`: the store is none of a strand, and nobody waits.
    fiber: Option<NonNull<Fiber>>,
    wasi: NonNull<WasiP1Ctx>,
}

impl Turn {
    /// Takes it when nobody has it.
    pub fn take(fiber: Option<&Fiber>, wasi: NonNull<WasiP1Ctx>) -> Turn {
        all_held().insert(wasi.addr().get());
        fiber.inspect(|fiber| held(&fiber.strand, |held| held.wasi.taken = true));
        Turn { fiber: fiber.map(NonNull::from), wasi }
    }

    /// Waits for it.
    pub fn wait(fiber: &Fiber, wasi: NonNull<WasiP1Ctx>) -> Result<Turn> {
        let waiter = Waiter::here(None).map_err(|status| refused(fiber, status))?;
        let mut node = Node::new(0, waiter.waker());
        let node = &raw mut node;
        // SAFETY: the node stays here until it was served or is removed below; whoever runs owns the strand, and so the
        // queue (**one guard**).
        unsafe {
            held(&fiber.strand, |held| held.wasi.waiters.push(node));
            let status = waiter.wait(None, || (*node).fate != Fate::Waits);
            if (*node).fate == Fate::Waits {
                held(&fiber.strand, |held| held.wasi.waiters.remove(node));
                return Err(refused(fiber, status));
            }
        }
        Ok(Turn { fiber: Some(NonNull::from(fiber)), wasi })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.fiber.and_then(|fiber| {
            // SAFETY: it is the fiber that runs.
            let fiber = unsafe { fiber.as_ref() };
            held(&fiber.strand, |held| {
                let next = held.wasi.waiters.serve(|_| Fate::Served);
                held.wasi.taken = next.is_some();
                next
            })
        });
        match next {
            Some(next) => next.wake(),
            None => _ = all_held().remove(&self.wasi.addr().get()),
        }
    }
}
