//! Stacks, cut from slabs of one reservation each and kept warm for the next fiber.
//!
//! A slab holds many slots of one size, `guard | stack`, lowest address first. A slot gets its
//! guard when it is first handed out and keeps it for ever. A stack that comes back is *warm*: its
//! top pages are in memory, which saves the next fiber its page faults (each costs more than fifty
//! switches), so the last one returned is the first one given out. [`Pool::trim`] gives the memory
//! of idle stacks back to the system.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::memory::{Guard, Mapping, page};

/// The guard below each stack. A host function whose frame is larger than this, and that does not
/// touch its frame in order, can step over it; compilers probe larger frames if told to
/// (`-fstack-clash-protection`).
pub const GUARD: usize = 64 * 1024;

/// The smallest stack handed out.
pub const MIN_STACK: usize = 16 * 1024;

/// Slabs grow from this many slots to [`MAX_SLOTS`], so that small programs reserve little and
/// large ones need few mappings.
const MIN_SLOTS: usize = 16;
const MAX_SLOTS: usize = 4096;
/// No slab reserves more address space than this, unless a single slot is larger.
const MAX_SLAB: usize = 4 << 30;
/// Warm stacks kept per size; the memory of further ones is given back at once.
const MAX_WARM: usize = 4096;

/// One stack. Whoever holds it owns its memory alone; dropping it gives it back to its pool.
#[derive(Debug)]
pub struct Stack {
    slab: Arc<Mapping>,
    /// Offset of the slot in its slab.
    offset: usize,
    /// Bytes between the guard and the top.
    size: usize,
    pool: Arc<Shared>,
}

impl Stack {
    /// The highest address; the first frame lies below it.
    pub fn top(&self) -> usize {
        self.bottom() + self.size
    }

    /// The lowest address that may be used.
    pub fn bottom(&self) -> usize {
        self.slab.base() as usize + self.offset + GUARD
    }

    /// The addresses that fault: `[start, end)`.
    pub fn guard(&self) -> (usize, usize) {
        (self.bottom() - GUARD, self.bottom())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let slot = Slot { slab: Arc::clone(&self.slab), offset: self.offset };
        let mut classes = self.pool.lock();
        let class = classes.entry(self.size).or_default();
        if class.warm.len() < MAX_WARM {
            class.warm.push(slot);
        } else {
            slot.discard(self.size);
            class.cold.push(slot);
        }
    }
}

// SAFETY: `top` and `bottom` bound usable memory of at least MIN_STACK bytes, aligned to a page,
// with a guard below it, for as long as the `Stack` lives (it holds its slab).
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.top()).expect("a mapping is not at address zero")
    }

    fn limit(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.guard().0).expect("a mapping is not at address zero")
    }
}

#[derive(Debug)]
struct Slot {
    slab: Arc<Mapping>,
    offset: usize,
}

impl Slot {
    fn discard(&self, size: usize) {
        self.slab.discard(self.offset + GUARD, size);
    }
}

/// All stacks of one size.
#[derive(Debug, Default)]
struct Class {
    /// Returned stacks with memory, youngest last.
    warm: Vec<Slot>,
    /// Returned stacks whose memory was given back.
    cold: Vec<Slot>,
    /// The slab that new slots are cut from: (mapping, next slot, slots).
    fresh: Option<(Arc<Mapping>, usize, usize)>,
    /// Slots of the newest slab; the next one has twice as many.
    slots: usize,
}

#[derive(Debug)]
struct Shared {
    classes: Mutex<BTreeMap<usize, Class>>,
    guard: Guard,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Class>> {
        // Nothing panics while the lock is held, except out of memory in a `Vec`; the lists are
        // whole even then.
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pool of stacks, by size.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// An empty pool that makes its guards as told.
    pub fn new(guard: Guard) -> Pool {
        Pool { shared: Arc::new(Shared { classes: Mutex::default(), guard }) }
    }

    /// The size of the stack that [`Pool::get`] would give for `size`: the next power of two, so
    /// that a program that asks for many sizes still reuses stacks.
    pub fn round(size: usize) -> Option<usize> {
        size.max(MIN_STACK).checked_next_power_of_two()
    }

    /// A stack of at least `size` bytes.
    pub fn get(&self, size: usize) -> io::Result<Stack> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let size = Pool::round(size).ok_or_else(too_large)?;
        let mut classes = self.shared.lock();
        let class = classes.entry(size).or_default();
        let slot = match class.warm.pop().or_else(|| class.cold.pop()) {
            Some(slot) => slot,
            None => class.cut(size, self.shared.guard)?,
        };
        drop(classes);
        Ok(Stack { slab: slot.slab, offset: slot.offset, size, pool: Arc::clone(&self.shared) })
    }

    /// Gives the memory of all stacks that nobody uses back to the system.
    pub fn trim(&self) {
        for (size, class) in self.shared.lock().iter_mut() {
            class.warm.iter().for_each(|slot| slot.discard(*size));
            class.cold.append(&mut class.warm);
        }
    }

    /// How many stacks lie in the pool with memory, and how many without.
    #[cfg(test)]
    pub fn idle(&self) -> (usize, usize) {
        let classes = self.shared.lock();
        classes.values().fold((0, 0), |(w, c), class| (w + class.warm.len(), c + class.cold.len()))
    }
}

impl Class {
    /// A slot that was never used, with its guard in place.
    fn cut(&mut self, size: usize, how: Guard) -> io::Result<Slot> {
        let stride = size.checked_add(GUARD).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.fresh.is_none() {
            let most = (MAX_SLAB / stride).clamp(1, MAX_SLOTS);
            let mut slots = (self.slots * 2).clamp(MIN_SLOTS, MAX_SLOTS).min(most);
            // An address space limit may refuse a large slab and allow a small one.
            let slab = loop {
                match stride.checked_mul(slots).map(Mapping::new) {
                    Some(Ok(slab)) => break slab,
                    Some(Err(e)) if slots == 1 => return Err(e),
                    None if slots == 1 => return Err(io::ErrorKind::OutOfMemory.into()),
                    _ => slots /= 2,
                }
            };
            self.slots = slots;
            self.fresh = Some((Arc::new(slab), 0, slots));
        }
        let (slab, next, slots) = self.fresh.as_mut().expect("set above");
        let offset = *next * stride;
        slab.guard(offset, GUARD, how)?;
        let slot = Slot { slab: Arc::clone(slab), offset };
        *next += 1;
        if next == slots {
            self.fresh = None;
        }
        Ok(slot)
    }
}

const _: () = assert!(GUARD.is_multiple_of(4096) && MIN_STACK >= corosensei::stack::MIN_STACK_SIZE);

/// The smallest unit that [`GUARD`] must be a multiple of, checked when a runtime is made.
pub fn guard_fits_pages() -> bool {
    GUARD.is_multiple_of(page()) && MIN_STACK.is_multiple_of(page())
}
