//! Stacks, cut from slabs of one reservation each and kept warm for the next fiber.
//!
//! A slab holds many slots of one size, `guard | stack`, lowest address first. A slot gets its
//! guard when it is first handed out and keeps it for ever. A stack that comes back is *warm*: its
//! top pages are in memory, which saves the next fiber its page faults (each costs more than fifty
//! switches), so the last one returned is the first one given out. [`Pool::trim`] gives the memory
//! of idle stacks back to the system.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
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
/// Stacks that a worker keeps at hand.
const AT_HAND: usize = 32;

/// One stack. Whoever holds it owns its memory alone, and gives it back with [`Pool::put`]; one that
/// is dropped instead is never used again, and its slab stays until all others of it are gone.
#[derive(Debug)]
pub struct Stack {
    slot: Slot,
    /// Bytes between the guard and the top.
    size: usize,
}

impl Stack {
    /// The highest address; the first frame lies below it.
    pub fn top(&self) -> usize {
        self.bottom() + self.size
    }

    /// The lowest address that may be used.
    pub fn bottom(&self) -> usize {
        self.slot.slab.base() as usize + self.slot.offset + GUARD
    }

    /// The addresses that fault: `[start, end)`.
    pub fn guard(&self) -> (usize, usize) {
        (self.bottom() - GUARD, self.bottom())
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

/// A pool of stacks, by size.
#[derive(Debug)]
pub struct Pool {
    classes: Mutex<BTreeMap<usize, Class>>,
    guard: Guard,
}

impl Pool {
    /// An empty pool that makes its guards as told.
    pub fn new(guard: Guard) -> Pool {
        Pool { classes: Mutex::default(), guard }
    }

    /// How it makes its guards.
    pub fn guard(&self) -> Guard {
        self.guard
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Class>> {
        // Nothing panics while the lock is held, except out of memory in a `Vec`; the lists are
        // whole even then.
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut classes = self.lock();
        let class = classes.entry(size).or_default();
        let slot = match class.warm.pop().or_else(|| class.cold.pop()) {
            Some(slot) => slot,
            None => class.cut(size, self.guard)?,
        };
        Ok(Stack { slot, size })
    }

    /// Takes a stack of this pool back.
    pub fn put(&self, stack: Stack) {
        let Stack { slot, size } = stack;
        let mut classes = self.lock();
        let class = classes.entry(size).or_default();
        if class.warm.len() < MAX_WARM {
            class.warm.push(slot);
        } else {
            slot.discard(size);
            class.cold.push(slot);
        }
    }

    /// Gives the memory of all stacks that nobody uses back to the system.
    pub fn trim(&self) {
        for (size, class) in self.lock().iter_mut() {
            class.warm.iter().for_each(|slot| slot.discard(*size));
            class.cold.append(&mut class.warm);
        }
    }
}

/// Stacks that a worker keeps at hand, so that a fiber that is spawned where one has just ended takes no lock.
/// It belongs to one thread.
#[derive(Default)]
pub struct Cache {
    /// All of one size.
    stacks: RefCell<Vec<Stack>>,
    /// Where they come from, and go to in the end.
    pool: Cell<Option<NonNull<Pool>>>,
}

impl Cache {
    /// A stack of at least `size` bytes.
    pub fn get(&self, pool: &Pool, size: usize) -> io::Result<Stack> {
        let mut stacks = self.stacks.borrow_mut();
        let fits = |stack: &mut Stack| Pool::round(size) == Some(stack.size);
        match stacks.pop_if(|stack| self.is_of(pool) && fits(stack)) {
            Some(stack) => Ok(stack),
            None => pool.get(size),
        }
    }

    /// Takes a stack of the pool back.
    ///
    /// # Safety
    ///
    /// The pool lives until [`Cache::flush`].
    pub unsafe fn put(&self, pool: &Pool, stack: Stack) {
        let mut stacks = self.stacks.borrow_mut();
        let alike = stacks.first().is_none_or(|first| self.is_of(pool) && first.size == stack.size);
        if alike && stacks.len() < AT_HAND {
            self.pool.set(Some(pool.into()));
            stacks.push(stack);
        } else {
            pool.put(stack);
        }
    }

    fn is_of(&self, pool: &Pool) -> bool {
        self.pool.get() == Some(pool.into())
    }

    /// Gives all of them to their pool.
    pub fn flush(&self) {
        if let Some(pool) = self.pool.take() {
            // SAFETY: the contract of `put`.
            self.stacks.borrow_mut().drain(..).for_each(|stack| unsafe { pool.as_ref() }.put(stack));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::has_guard_install;

    impl Pool {
        /// How many stacks lie in the pool with memory, and how many without.
        fn idle(&self) -> (usize, usize) {
            let classes = self.lock();
            let count = |(w, c), class: &Class| (w + class.warm.len(), c + class.cold.len());
            classes.values().fold((0, 0), count)
        }
    }

    fn guards() -> impl Iterator<Item = Guard> {
        [Guard::Mprotect, Guard::Install].into_iter().filter(|g| *g != Guard::Install || has_guard_install())
    }

    /// Can the byte at `address` be read? Asked of the kernel, which says no without a signal.
    fn readable(address: usize) -> bool {
        let mut pipe = [0; 2];
        // SAFETY: two descriptors are written; `write` fails with EFAULT where it may not read.
        unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            let written = libc::write(pipe[1], address as *const libc::c_void, 1);
            libc::close(pipe[0]);
            libc::close(pipe[1]);
            written == 1
        }
    }

    #[test]
    fn every_stack_has_a_guard_and_no_neighbour_inside() {
        for how in guards() {
            let pool = Pool::new(how);
            let stacks: Vec<_> = (0..40).map(|_| pool.get(MIN_STACK).unwrap()).collect();
            for stack in &stacks {
                let (start, end) = stack.guard();
                assert!((start, end) == (stack.bottom() - GUARD, stack.bottom()));
                assert!(!readable(start) && !readable(end - 1), "{how:?}: no guard");
                assert!(readable(end) && readable(stack.top() - 1), "{how:?}: no stack");
                for other in stacks.iter().filter(|other| !std::ptr::eq(*other, stack)) {
                    assert!(other.top() <= start || other.guard().0 >= stack.top());
                }
            }
        }
    }

    #[test]
    fn the_last_one_returned_is_the_next_and_trim_keeps_guards() {
        for how in guards() {
            let pool = Pool::new(how);
            let (first, second) = (pool.get(30_000).unwrap(), pool.get(30_000).unwrap());
            let (a, b) = (first.bottom(), second.bottom());
            assert_eq!(second.top() - b, 32_768, "rounded up");
            pool.put(first);
            pool.put(second);
            assert_eq!(pool.idle(), (2, 0));
            let again = pool.get(20_000).unwrap();
            assert_eq!(again.bottom(), b, "the warmest");
            pool.put(again);
            pool.trim();
            assert_eq!(pool.idle(), (0, 2));
            let stack = pool.get(32_768).unwrap();
            assert!([a, b].contains(&stack.bottom()));
            assert!(!readable(stack.guard().0), "{how:?}: trimming took the guard");
        }
    }

    #[test]
    fn what_can_not_be_had_is_an_error() {
        let pool = Pool::new(Guard::Mprotect);
        assert!(pool.get(usize::MAX).is_err() && pool.get(1 << 50).is_err());
        assert!(pool.get(MIN_STACK).is_ok());
    }
}
