//! The module `bop`, which guests import: `include/bop_guest.h` declares it for C.
//!
//! What a guest is given for a fiber or a channel is a number, good in its own store only. Mistakes that a
//! C program could test for come back as a status; those that it could not have meant (an index beyond the
//! table, a pointer beyond the memory) trap.

mod channels;
mod fibers;
mod words;

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{AsContextMut, Caller, Error, Linker, Memory, Result};
use wasmtime_c_api::WasmtimeStoreData;

use super::channel::Channel;
use super::queue::Queue;
use super::wait::Status;
use crate::wasm::bridge;
use crate::wasm::fiber::{Fiber, current};
use crate::wasm::shadow::expose::OUR_MEMORY;
use crate::wasm::strand::Strand;

type Call<'a> = Caller<'a, WasmtimeStoreData>;

/// The name that guests import from.
const MODULE: &str = "bop";

/// Handles that a store's guests may hold at a time: of fibers that were not joined, and of channels.
const HANDLES: usize = 1 << 20;

/// What `bop_guest.h` calls a `bop_guest_status_t`; the numbers of `bop_status_t`, as far as it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum Reply {
    Ok = 0,
    Timeout = 1,
    Cancelled = 2,
    NotAllowed = 5,
    Invalid = 6,
    HasGc = 7,
    Closed = 8,
    Limit = 9,
    Failed = 10,
}

impl From<Status> for Reply {
    fn from(status: Status) -> Reply {
        match status {
            Status::Ok => Reply::Ok,
            Status::Timeout => Reply::Timeout,
            Status::Cancelled => Reply::Cancelled,
            Status::NotFiber | Status::NotAllowed => Reply::NotAllowed,
            Status::StoreHasGc => Reply::HasGc,
            Status::Closed => Reply::Closed,
        }
    }
}

/// What the guests of a store hold.
#[derive(Default)]
struct Held {
    /// Fibers to be joined, by their number.
    fibers: HashMap<u64, Arc<Fiber>>,
    channels: HashMap<u32, Arc<Channel>>,
    last_channel: u32,
    /// Who waits for which word.
    words: HashMap<words::Word, Queue>,
    /// The instance's stack was looked for.
    looked: bool,
}

impl Held {
    fn is_full(&self) -> bool {
        self.fibers.len() + self.channels.len() >= HANDLES
    }
}

/// Uses what the guests of a strand hold. Not across a suspension.
fn held<T>(strand: &Strand, use_it: impl FnOnce(&mut Held) -> T) -> T {
    // SAFETY: whoever calls is the running fiber, which owns the strand; the borrow ends here.
    let slot = unsafe { &mut *strand.guest.get() };
    let held = slot.get_or_insert_with(|| Box::new(Held::default()));
    use_it(held.downcast_mut().expect("nobody else keeps anything here"))
}

/// The fiber that calls, which must be one of the calling instance's store.
fn fiber<'a>(caller: &mut Call<'_>) -> Result<&'a Fiber> {
    let context = bridge::context_of(caller.as_context_mut());
    let fiber = current().filter(|fiber| fiber.strand.is_store_of(context));
    fiber.ok_or_else(|| {
        Error::msg("bop: not called by a fiber of this store (a start function that the host runs is none)")
    })
}

fn memory(caller: &mut Call<'_>) -> Result<Memory> {
    let memory = caller.get_export("memory").or_else(|| caller.get_export(OUR_MEMORY));
    let memory = memory.and_then(wasmtime::Extern::into_memory);
    memory.ok_or_else(|| Error::msg("bop: the instance exports no memory of its own"))
}

/// Writes where the guest said; a null pointer is fine.
fn write(caller: &mut Call<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    if at != 0 {
        memory(caller)?.write(caller, at as usize, bytes)?;
    }
    Ok(())
}

/// Is the pointer such that [`write`] would do?
fn check(caller: &mut Call<'_>, at: u32, len: usize) -> Result<()> {
    let size = if at == 0 { return Ok(()) } else { memory(caller)?.data_size(caller) };
    if at as usize + len > size {
        return Err(Error::msg(format!("bop: a pointer beyond the memory: {at:#x}")));
    }
    Ok(())
}

/// Defines the module in a linker.
pub fn define(linker: &mut Linker<WasmtimeStoreData>) -> Result<()> {
    fibers::define(linker)?;
    channels::define(linker)?;
    words::define(linker)
}
