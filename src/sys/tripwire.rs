//! Guards in memory that somebody else owns, and that somebody else may touch by right.
//!
//! A guest's linear memory is ordinary memory of the process: the guest reaches all of it, and so do host
//! functions and copies of the runtime that follow a guest's pointers. A guard in there must therefore
//! never kill the process. Who touches one *opens* it: the fault handler makes the page accessible,
//! and the access is made again. The pages belong to nobody, so nothing is harmed; whose they protect is
//! told (`wasm::shadow`).
//!
//! The handler may run on any thread at any time, so the table of all guards is read without a lock:
//! spans are never freed, only used again.

use std::io;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::memory::{self, Guard};

/// Equal pieces of memory side by side, each of which begins with a guard.
///
/// ```text
///   start                    + stride                                      end
///   | guard | ............... | guard | ............... | ...                |
/// ```
#[derive(Debug, Default)]
struct Node {
    /// 0: not in use.
    start: AtomicUsize,
    end: AtomicUsize,
    stride: AtomicUsize,
    guard: AtomicUsize,
    /// `Guard`, as a number.
    how: AtomicUsize,
    /// Guards that were opened.
    opened: AtomicU64,
    next: AtomicPtr<Node>,
}

static NODES: AtomicPtr<Node> = AtomicPtr::new(null_mut());
/// Nodes not in use. Also held while one is set up.
static SPARE: Mutex<Vec<&'static Node>> = Mutex::new(Vec::new());

/// Guards that are in place until this is dropped.
#[derive(Debug)]
pub struct Span {
    node: &'static Node,
}

impl Span {
    /// Puts a guard of `guard` bytes at the start of each piece of `stride` bytes.
    ///
    /// # Safety
    ///
    /// `[start, start + count * stride)` is private, readable and writable memory for as long as the
    /// result lives, all three are multiples of the page size, and nothing is in the guards.
    pub unsafe fn new(
        start: *mut u8,
        count: usize,
        stride: usize,
        guard: usize,
        how: Guard,
    ) -> io::Result<Span> {
        let mut spare = SPARE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let node = spare.pop().unwrap_or_else(|| {
            let node: &'static Node = Box::leak(Box::default());
            node.next.store(NODES.load(Ordering::Relaxed), Ordering::Relaxed);
            // Release: the handler that finds the node finds it whole. Nobody else pushes (`SPARE`).
            NODES.store((&raw const *node).cast_mut(), Ordering::Release);
            node
        });
        node.end.store(start as usize + count * stride, Ordering::Relaxed);
        node.stride.store(stride, Ordering::Relaxed);
        node.guard.store(guard, Ordering::Relaxed);
        node.how.store(how as usize, Ordering::Relaxed);
        node.opened.store(0, Ordering::Relaxed);
        // Last, and Release: a handler that sees the start sees the rest (Acquire in `find`).
        node.start.store(start as usize, Ordering::Release);
        drop(spare);
        let span = Span { node };
        for i in 0..count {
            span.close(i)?;
        }
        Ok(span)
    }

    /// Puts one guard back.
    pub fn close(&self, index: usize) -> io::Result<()> {
        let at = self.node.start.load(Ordering::Relaxed) + index * self.node.stride.load(Ordering::Relaxed);
        // SAFETY: the contract of `new`.
        unsafe { memory::guard(at as *mut u8, self.node.guard.load(Ordering::Relaxed), self.node.how()) }
    }

    /// How many pages of guards were opened so far.
    pub fn opened(&self) -> u64 {
        self.node.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let node = self.node;
        let (start, end) = (node.start.load(Ordering::Relaxed), node.end.load(Ordering::Relaxed));
        let (stride, guard) = (node.stride.load(Ordering::Relaxed), node.guard.load(Ordering::Relaxed));
        match node.how() {
            // One call for all: what is no guard stays as it is.
            // SAFETY: the contract of `new`.
            how @ Guard::Install => unsafe { memory::unguard(start as *mut u8, end - start, how) },
            how @ Guard::Mprotect => {
                for at in (start..end).step_by(stride) {
                    // SAFETY: as above.
                    unsafe { memory::unguard(at as *mut u8, guard, how) };
                }
            }
        }
        node.start.store(0, Ordering::Release);
        SPARE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(node);
    }
}

impl Node {
    fn how(&self) -> Guard {
        if self.how.load(Ordering::Relaxed) == Guard::Install as usize {
            Guard::Install
        } else {
            Guard::Mprotect
        }
    }

    /// Is there a guard at this address?
    fn guards(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let stride = self.stride.load(Ordering::Relaxed);
        start != 0
            && (start..self.end.load(Ordering::Relaxed)).contains(&address)
            && (address - start).checked_rem(stride).is_some_and(|at| at < self.guard.load(Ordering::Relaxed))
    }
}

/// Opens the page at an address if it is one of a guard. Runs in a signal handler.
pub fn open(address: usize) -> bool {
    let mut next = NODES.load(Ordering::Acquire);
    // SAFETY: nodes are never freed.
    while let Some(node) = unsafe { next.as_ref() } {
        if node.guards(address) {
            let page = memory::page();
            node.opened.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the page lies in a guard of a live span, whose memory was readable and writable.
            unsafe { memory::unguard((address & !(page - 1)) as *mut u8, page, node.how()) };
            return true;
        }
        next = node.next.load(Ordering::Acquire);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::{Mapping, has_guard_install, page};

    #[test]
    fn a_guard_is_found_opened_and_put_back() {
        let (page, kinds) = (page(), [Guard::Mprotect, Guard::Install]);
        for how in kinds.into_iter().filter(|&k| k == Guard::Mprotect || has_guard_install()) {
            let memory = Mapping::new(16 * page).unwrap();
            let base = memory.base();
            // SAFETY: memory of our own with nothing in it.
            let span = unsafe { Span::new(base, 4, 4 * page, 2 * page, how) }.unwrap();
            let at = |i: usize| base as usize + i;
            assert!(!open(at(2 * page)) && !open(at(16 * page)) && !open(at(0) - 1));
            assert!(open(at(5 * page + 17)) && span.opened() == 1);
            // SAFETY: open now, and ours.
            unsafe { base.add(5 * page).write_volatile(7) };
            assert!(!can_read(base.wrapping_add(4 * page)), "its neighbour was left closed");
            span.close(1).unwrap();
            assert!(!can_read(base.wrapping_add(5 * page)));
            drop(span);
            assert!(!open(at(0)));
            assert!((0..16).all(|i| can_read(base.wrapping_add(i * page))));
        }
    }

    /// Asks the kernel, which reads what is written to a pipe and does not die of it.
    fn can_read(at: *mut u8) -> bool {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors, which are ours; the kernel says what it finds at `at`.
        unsafe {
            assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
            let written = libc::write(pipe[1], at.cast(), 1);
            pipe.into_iter().for_each(|fd| assert_eq!(libc::close(fd), 0));
            written == 1
        }
    }
}
