//! The module `bop`, which guests import: `include/bop_guest.h` declares it for C.
//!
//! What a guest is given for a fiber or a channel is a number, good in its own store only. Mistakes that a
//! C program could test for come back as a status; those that it could not have meant (an index beyond the
//! table, a pointer beyond the memory) trap.

mod channels;
mod fibers;
mod words;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use wasmtime::{AsContextMut, Caller, Error, Extern, Linker, Memory, Result, Table};
use wasmtime_c_api::WasmtimeStoreData;

use super::sync::channel::Channel;
use super::sync::queue::Queue;
use super::wait::Status;
use super::wasi::Turns;
use crate::wasm::bridge;
use crate::wasm::fiber::{Fiber, current};
use crate::wasm::shadow::expose::{MEMORY, OUR_MEMORY, TABLE};
use crate::wasm::strand::Strand;

type Call<'a> = Caller<'a, WasmtimeStoreData>;

/// The name that guests import from.
const MODULE: &str = "bop";

/// Handles that a store's guests may hold at a time: of fibers that were not joined, and of channels. All
/// that they cost is the host's memory.
const HANDLES: usize = 1 << 17;

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
            Status::Limit => Reply::Limit,
            Status::Failed => Reply::Failed,
            // Guests have none of what these are about.
            Status::Invalid | Status::Abandoned => Reply::Invalid,
        }
    }
}

/// What is known by a number that is given out here, one after the other: nobody can choose numbers that collide.
type Numbered<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;

#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }

    fn write_u64(&mut self, number: u64) {
        // The table looks at the highest bits too.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What the guests of a store hold.
#[derive(Default)]
pub(super) struct Held {
    /// Fibers to be joined, by their number.
    fibers: Numbered<fibers::Child>,
    channels: Numbered<Arc<Channel>>,
    last_channel: u32,
    /// Values for which the channels have room, all together.
    room: usize,
    /// Who waits for which word.
    words: HashMap<words::Word, Queue>,
    /// The instances, by their numbers, that are shared or keep no stack in their memory.
    ready: HashSet<u64, BuildHasherDefault<Spread>>,
    /// Whose turn it is to use the store's WASI.
    pub(super) wasi: Turns,
    /// The instance that called last, and what it exports: looking exports up by name takes time.
    caller: Option<(u32, Exports)>,
}

impl Held {
    fn is_full(&self) -> bool {
        self.fibers.len() + self.channels.len() >= HANDLES
    }
}

/// Uses what the guests of a strand hold. Not across a suspension.
pub(super) fn held<T>(strand: &Strand, use_it: impl FnOnce(&mut Held) -> T) -> T {
    // SAFETY: whoever calls is the running fiber, which owns the strand; the borrow ends here.
    let slot = unsafe { &mut *strand.guest.get() };
    let held = slot.get_or_insert_with(|| Box::new(Held::default()));
    use_it(held.downcast_mut().expect("nobody else keeps anything here"))
}

/// An instance of the strand's store was shared by the host, whatever its exports are called. The caller owns
/// the strand.
pub fn is_ready(strand: &Strand, instance: u32) {
    held(strand, |held| held.ready.insert(instance.into()));
}

/// The fiber that calls, which must be one of the calling instance's store.
fn fiber<'a>(caller: &mut Call<'_>) -> Result<&'a Fiber> {
    let context = bridge::context_of(caller.as_context_mut());
    let fiber = current().filter(|fiber| fiber.strand.is_store_of(context));
    fiber.ok_or_else(|| {
        Error::msg("bop: not called by a fiber of this store (a start function that the host runs is none)")
    })
}

/// What a guest's calls need of its instance.
#[derive(Clone, Copy)]
struct Exports {
    memory: Option<Memory>,
    table: Option<Table>,
}

/// Those of the instance that calls, by way of `running`.
fn exports(caller: &mut Call<'_>, running: &Fiber) -> Exports {
    let number = bridge::calling_instance(caller);
    let known = held(&running.strand, |held| held.caller.filter(|known| Some(known.0) == number));
    if let Some((_, exports)) = known {
        return exports;
    }
    let memory = caller.get_export(OUR_MEMORY).or_else(|| caller.get_export(MEMORY));
    let table = caller.get_export(TABLE).and_then(Extern::into_table);
    let exports = Exports { memory: memory.and_then(Extern::into_memory), table };
    held(&running.strand, |held| held.caller = number.map(|number| (number, exports)));
    exports
}

fn memory(caller: &mut Call<'_>, running: &Fiber) -> Result<Memory> {
    let memory = exports(caller, running).memory;
    memory.ok_or_else(|| Error::msg("bop: the instance exports no memory of its own"))
}

/// Writes where the guest said; a null pointer is fine.
fn write(caller: &mut Call<'_>, running: &Fiber, at: u32, bytes: &[u8]) -> Result<()> {
    if at != 0 {
        memory(caller, running)?.write(caller, at as usize, bytes)?;
    }
    Ok(())
}

/// Is the pointer such that [`write`] would do?
fn check(caller: &mut Call<'_>, running: &Fiber, at: u32, len: usize) -> Result<()> {
    let size = if at == 0 { return Ok(()) } else { memory(caller, running)?.data_size(caller) };
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
