//! Polling a future on a fiber.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use wasmtime::{Error, Result};
use wasmtime_wasi::runtime::{in_tokio, with_ambient_tokio_runtime};

use super::turn::Turn;
use super::{Call, Entry, Place, fiber_of, refused};
use crate::runtime::wait::{Status, Waiter};
use crate::wasm::end;
use crate::wasm::fiber::{Fiber, current};

/// What a future wakes its fiber with.
struct Signal {
    used: AtomicBool,
    waker: Arc<dyn end::Wake>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: the fiber sees what came before.
        self.used.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Polls once. Tokio's thread-locals are set up meanwhile, so the fiber must stay where it is; and none of their addresses
/// may be kept from one poll to the next (W3).
#[inline(never)]
fn poll<F: Future>(fiber: Option<&Fiber>, future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    let before = fiber.map(|fiber| fiber.no_switch.replace(true));
    let polled = with_ambient_tokio_runtime(|| future.poll(&mut Context::from_waker(waker)));
    fiber.zip(before).inspect(|(fiber, before)| fiber.no_switch.set(*before));
    polled
}

/// Polls to the end, and blocks the thread.
#[inline(never)]
fn block<F: Future>(future: F) -> F::Output {
    in_tokio(future)
}

/// Runs a future to its end; the fiber waits where it waits.
pub fn wait<F: Future>(caller: &mut Call<'_>, mut entry: Entry, future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    let fiber = current();
    // Most need no waker.
    if let Poll::Ready(output) = poll(fiber, future.as_mut(), Waker::noop()) {
        return Ok(output);
    }
    let waiter = match (fiber, Waiter::here(None)) {
        (Some(fiber), Err(Status::Cancelled)) => return Err(Error::new(fiber.why_stopped())),
        (Some(_), Ok(waiter)) => waiter,
        // A plain thread, or a fiber that can't be suspended.
        _ => return Ok(block(future)),
    };
    // Dropped after the future.
    entry.turn.get_or_insert_with(|| Turn::take(fiber_of(caller), entry.wasi));
    let signal = Arc::new(Signal { used: AtomicBool::new(false), waker: waiter.waker() });
    let waker = Waker::from(Arc::clone(&signal));
    loop {
        if let Poll::Ready(output) = poll(fiber, future.as_mut(), &waker) {
            return Ok(output);
        }
        // Acquire: see `wake_by_ref`.
        let status = waiter.wait(None, || signal.used.swap(false, Ordering::Acquire));
        if let Some(fiber) = fiber
            && status != Status::Ok
        {
            return Err(refused(fiber, status));
        }
        if Place::of(caller)?.at != entry.memory.at {
            return Err(Error::msg("WASI: the memory was moved during a call that waited"));
        }
    }
}
