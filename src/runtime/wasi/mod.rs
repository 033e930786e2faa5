//! WASI preview 1 that waits as fibers do: Wasmtime's implementation, whose futures are polled on the fiber's own stack.
//!
//! A call that can't go on suspends its fiber until the future's waker is used. Wasmtime's own way to define these
//! functions blocks the thread there.
//!
//! **Turns.** A future that waits holds the store's WASI. Nobody else of the store may touch that meanwhile, so
//! siblings that call WASI then wait (invariant **one at a time**). Sleeping, yielding and waiting for the clock touch none
//! of it (`poll`); nor do reads and writes of descriptors that the host
//! has put in for standard input and output (`stdio`).
//!
//! **Memory.** A future that waits also holds the guest's memory, which siblings and the host may change, as with memory
//! that threads share; it is told so (`GuestMemory::Shared`), and copies what it uses. Should the memory have been moved
//! meanwhile, which no usual configuration does, the call traps.

mod functions;
mod poll;
mod stdio;
mod turn;
mod wait;

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use wasmtime::{AsContextMut, Caller, Error, Extern, Result};
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_wasi::p1::WasiP1Ctx;
use wiggle::GuestMemory;

use super::guest::held;
use super::sync::queue::Queue;
use super::wait::Status;
use turn::Turn;
use crate::wasm::bridge;
use crate::wasm::fiber::{Fiber, current};
use crate::wasm::wasi_ctx;

pub use functions::define;

type Call<'a> = Caller<'a, WasmtimeStoreData>;

/// Whether the call of a suspended fiber has a store's WASI, and who waits for it. It belongs to the strand's owner.
#[derive(Default)]
pub struct Turns {
    taken: bool,
    waiters: Queue,
}

/// A call of a function.
struct Entry {
    wasi: NonNull<WasiP1Ctx>,
    memory: Place,
    /// It was waited for.
    turn: Option<Turn>,
}

/// Where the guest's memory is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    at: NonNull<u8>,
    bytes: usize,
}

impl Place {
    fn of(caller: &mut Call<'_>) -> Result<Place> {
        match caller.get_export("memory") {
            Some(Extern::Memory(memory)) => {
                let data = memory.data_mut(caller);
                Ok(Place { at: NonNull::from(&mut *data).cast(), bytes: data.len() })
            }
            Some(Extern::SharedMemory(memory)) => {
                Ok(Place { at: NonNull::from(memory.data()).cast(), bytes: memory.data().len() })
            }
            _ => Err(Error::msg("WASI: the instance exports no memory")),
        }
    }

    /// The memory, for as long as the caller knows that it stays there.
    fn memory<'a>(self) -> GuestMemory<'a> {
        // SAFETY: it is the calling instance's, which lives, and moves only when it grows (`wait`); cells may be changed
        // by anybody.
        GuestMemory::Shared(unsafe {
            std::slice::from_raw_parts(self.at.as_ptr().cast::<UnsafeCell<u8>>(), self.bytes)
        })
    }
}

/// The fiber that calls, if its strand is the caller's store.
fn fiber_of(caller: &mut Call<'_>) -> Option<&'static Fiber> {
    let context = bridge::context_of(caller.as_context_mut());
    current().filter(|fiber| fiber.strand.is_store_of(context))
}

impl Entry {
    /// Waits until no sibling's call holds the store's WASI. Not inlined: what comes after it may use thread-locals (W3).
    #[inline(never)]
    fn new(caller: &mut Call<'_>) -> Result<Entry> {
        let wasi = wasi_ctx::of(caller.data_mut());
        let wasi = wasi.ok_or_else(|| Error::msg("the store has no WASI: wasmtime_context_set_wasi gives it one"))?;
        let turn = match fiber_of(caller) {
            Some(fiber) if held(&fiber.strand, |held| held.wasi.taken) => Some(Turn::wait(fiber, wasi)?),
            Some(_) => None,
            None if turn::is_held(wasi) => {
                // A host thread that has entered the store can't wait: the fiber would never run.
                return Err(Error::msg("WASI: a fiber of the store is in a call, and waits"));
            }
            None => None,
        };
        let fuel = caller.as_context_mut().hostcall_fuel();
        let mut entry = Entry { wasi, memory: Place::of(caller)?, turn };
        functions::set_fuel(entry.wasi(), fuel);
        Ok(entry)
    }

    /// The store's WASI.
    fn wasi<'a>(&mut self) -> &'a mut WasiP1Ctx {
        // SAFETY: it lives in the store's data, which stays during the call; **one at a time**.
        unsafe { self.wasi.as_mut() }
    }
}

/// What ends a call that may not wait.
fn refused(fiber: &Fiber, status: Status) -> Error {
    match status {
        Status::Cancelled => Error::new(fiber.why_stopped()),
        status => Error::msg(format!("WASI: another fiber of the store is in a call, and waiting failed: {status}")),
    }
}
