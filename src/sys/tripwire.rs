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
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

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
    /// Pages of guards that were opened, and which guard it was the last time.
    opened: AtomicU64,
    last: AtomicUsize,
    next: AtomicPtr<Node>,
}

static NODES: AtomicPtr<Node> = AtomicPtr::new(null_mut());
/// All that were ever opened, in any span: one look tells whether there is anything to close.
static OPENED: AtomicU64 = AtomicU64::new(0);
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
        // Partner: the fence in `guard_at`. Whoever reads one of these new values sees that the old start is gone.
        fence(Ordering::Release);
        node.end.store(start as usize + count * stride, Ordering::Relaxed);
        node.stride.store(stride, Ordering::Relaxed);
        node.guard.store(guard, Ordering::Relaxed);
        node.how.store(how as usize, Ordering::Relaxed);
        node.opened.store(0, Ordering::Relaxed);
        // Last, and Release: a handler that sees the start sees the rest (Acquire in `guard_at`).
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

    /// Puts all guards back that were opened since there had been `seen` of them, and returns how many there are
    /// now.
    pub fn close_opened(&self, seen: u64) -> u64 {
        let opened = self.opened();
        let node = self.node;
        let (start, end) = (node.start.load(Ordering::Relaxed), node.end.load(Ordering::Relaxed));
        // A guard that can't be put back stays open: what is below it is then as safe as with none.
        match opened - seen {
            0 => {}
            1 => drop(self.close(node.last.load(Ordering::Relaxed))),
            _ => {
                let count = (end - start) / node.stride.load(Ordering::Relaxed);
                (0..count).for_each(|i| drop(self.close(i)));
            }
        }
        opened
    }
}

/// How many pages were opened so far, in all spans.
#[inline]
pub fn opened() -> u64 {
    OPENED.load(Ordering::Relaxed)
}

impl Drop for Span {
    fn drop(&mut self) {
        let node = self.node;
        let (start, end) = (node.start.load(Ordering::Relaxed), node.end.load(Ordering::Relaxed));
        let (stride, guard) = (node.stride.load(Ordering::Relaxed), node.guard.load(Ordering::Relaxed));
        match node.how() {
            // One call for all: what is no guard stays as it is.
            // SAFETY: the contract of `new`.
            how @ Guard::Install => unsafe {
                memory::unguard(start as *mut u8, end - start, how);
            },
            how @ Guard::Mprotect => {
                for at in (start..end).step_by(stride) {
                    // SAFETY: as above. Whole guards merge with what is around them, so this can't fail.
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

    /// The guard at this address: where it starts, its length, and its number.
    fn guard_at(&self, address: usize) -> Option<(usize, usize, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Relaxed);
        let stride = self.stride.load(Ordering::Relaxed);
        let guard = self.guard.load(Ordering::Relaxed);
        // The node may have been given to others while we read: then the start is another, or 0.
        fence(Ordering::Acquire);
        if start == 0 || self.start.load(Ordering::Relaxed) != start || !(start..end).contains(&address) {
            return None;
        }
        let index = (address - start).checked_div(stride)?;
        let at = start + index * stride;
        (address - at < guard).then_some((at, guard, index))
    }
}

/// Opens the page at an address if it is one of a guard. Runs in a signal handler.
pub fn open(address: usize) -> bool {
    let mut next = NODES.load(Ordering::Acquire);
    // SAFETY: nodes are never freed.
    while let Some(node) = unsafe { next.as_ref() } {
        if let Some((at, guard, index)) = node.guard_at(address) {
            let page = memory::page();
            let (how, here) = (node.how(), (address & !(page - 1)) as *mut u8);
            // SAFETY: the pages lie in a guard of a live span, whose memory was readable and writable. With no
            // mapping left to split off, the whole guard goes back into its surroundings.
            let opened = unsafe {
                memory::unguard(here, page, how) || memory::unguard(at as *mut u8, guard, how)
            };
            if opened {
                node.last.store(index, Ordering::Relaxed);
                node.opened.fetch_add(1, Ordering::Relaxed);
                OPENED.fetch_add(1, Ordering::Relaxed);
            }
            return opened;
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
