//! Waiting for a word of the guest's memory to change, as `memory.atomic.wait32` and `memory.atomic.notify` do it
//! for threads: what locks are made of.
//!
//! No lock guards the queues: fibers of one store take turns, so whoever runs owns them (`queue`,
//! **one guard**), and nothing can come between the look at the word and the entry in the queue.

use wasmtime::{Error, Linker, Result};
use wasmtime_c_api::WasmtimeStoreData;

use super::{Call, MODULE, fiber, held, memory};
use crate::runtime::sync::queue::{Fate, Node};
use crate::runtime::wait::{Status, Waiter};
use crate::sys::clock;
use crate::wasm::bridge;
use crate::wasm::fiber::Fiber;
use crate::wasm::strand::Strand;

/// What `wait` returns; the first three as the instruction does.
const WOKEN: i32 = 0;
const NOT_EQUAL: i32 = 1;
const TIMED_OUT: i32 = 2;
const CANCELLED: i32 = 3;

pub fn define(linker: &mut Linker<WasmtimeStoreData>) -> Result<()> {
    linker.func_wrap(MODULE, "wait", wait)?;
    linker.func_wrap(MODULE, "notify", notify)?;
    Ok(())
}

/// A word, by its memory and its address in there.
pub type Word = (u64, u32);

/// Which word it is, and its value.
fn word(caller: &mut Call<'_>, running: &Fiber, at: u32) -> Result<(Word, i32)> {
    let memory = memory(caller, running)?;
    let word = memory.data(&*caller).get(at as usize..).and_then(<[u8]>::first_chunk::<4>);
    match word {
        Some(word) if at.is_multiple_of(4) => {
            Ok(((bridge::memory_number(memory), at), i32::from_le_bytes(*word)))
        }
        Some(_) => Err(Error::msg(format!("bop: not the address of a word: {at:#x}"))),
        None => Err(Error::msg(format!("bop: a pointer beyond the memory: {at:#x}"))),
    }
}

fn wait(mut caller: Call<'_>, at: u32, expected: i32, timeout: i64) -> Result<i32> {
    let running = fiber(&mut caller)?;
    let (word, value) = word(&mut caller, running, at)?;
    if value != expected {
        return Ok(NOT_EQUAL);
    }
    let deadline = u64::try_from(timeout).ok().map(|timeout| clock::now().saturating_add(timeout));
    let waiter = match Waiter::here(deadline) {
        Ok(waiter) => waiter,
        Err(status) => return refused(status),
    };
    let mut node = Node::new(0, waiter.waker());
    let place = Place { strand: &running.strand, word, node: &raw mut node };
    // SAFETY: the node stays here until `place` is dropped, which takes it out.
    held(&running.strand, |held| unsafe { held.words.entry(word).or_default().push(place.node) });
    // SAFETY: this fiber runs, so nobody else looks at the node.
    let status = waiter.wait(deadline, || unsafe { (*place.node).fate != Fate::Waits });
    match status {
        Status::Ok => Ok(WOKEN),
        status => refused(status),
    }
}

fn refused(status: Status) -> Result<i32> {
    match status {
        Status::Timeout => Ok(TIMED_OUT),
        Status::Cancelled => Ok(CANCELLED),
        _ => Err(Error::msg("bop.wait: this fiber may not be suspended here")),
    }
}

fn notify(mut caller: Call<'_>, at: u32, count: u32) -> Result<u32> {
    let running = fiber(&mut caller)?;
    let (word, _) = word(&mut caller, running, at)?;
    let mut woken = 0;
    while woken < count {
        let waiter = held(&running.strand, |held| {
            let queue = held.words.get_mut(&word)?;
            let waiter = queue.serve(|_| Fate::Served);
            if queue.is_empty() {
                held.words.remove(&word);
            }
            waiter
        });
        let Some(waiter) = waiter else { break };
        waiter.wake();
        woken += 1;
    }
    Ok(woken)
}

/// A node in the queue of a word, until dropped.
struct Place<'a> {
    strand: &'a Strand,
    word: Word,
    node: *mut Node,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // SAFETY: the node outlives its place, and is in the queue while it waits.
        held(self.strand, |held| unsafe {
            if (*self.node).fate == Fate::Waits
                && let Some(queue) = held.words.get_mut(&self.word)
            {
                queue.remove(self.node);
                if queue.is_empty() {
                    held.words.remove(&self.word);
                }
            }
        });
    }
}
