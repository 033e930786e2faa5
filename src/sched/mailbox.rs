//! A strand's fibers that are ready, and who may run them.
//!
//! ```text
//!     any thread: post ──► inbox (lock-free stack) ──┐ the owner takes it whole,
//!                                                    ▼ and turns it round
//!     owner: push ───────────────────────────────► ready list ──► owner: pop
//! ```
//!
//! A mailbox is FREE or OWNED. It is owned while its strand is in a run queue, is run by a worker,
//! or is claimed by somebody else. `post` that finds it free owns it from then on, and must
//! schedule it: so a strand is in one queue at most. The owner gives it up with `release`, and
//! keeps it if a post came in between: both sides swap the same word, so one of them sees the
//! other.
//!
//! The lists are threaded through the items themselves, so posting allocates nothing. An item is
//! in one list of one mailbox at most (invariant **one waker** of `fiber::state`).

use std::cell::Cell;
use std::ptr::{NonNull, null_mut};

use crate::sys::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// An item that a mailbox can hold.
///
/// # Safety
///
/// `link` must always return the same word of the item, used for nothing else, and the item must
/// stay valid while it is in a mailbox.
pub unsafe trait Linked: Sized {
    /// The word that threads the item into a list.
    fn link(&self) -> &AtomicPtr<Self>;
}

/// See the head of this file.
pub struct Mailbox<T: Linked> {
    owned: AtomicBool,
    /// Newest first.
    inbox: AtomicPtr<T>,
    /// Oldest first; only the owner touches these two.
    head: Cell<*mut T>,
    tail: Cell<*mut T>,
}

// SAFETY: `head` and `tail` are touched by the owner alone, and ownership is handed over through
// `owned` (Release to Acquire) or a run queue. A new field must be one or the other: atomic, or
// the owner's. The items are shared between threads, hence `T: Send + Sync`.
unsafe impl<T: Linked + Send + Sync> Sync for Mailbox<T> {}
// SAFETY: as above.
unsafe impl<T: Linked + Send + Sync> Send for Mailbox<T> {}

impl<T: Linked> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox {
            owned: AtomicBool::new(false),
            inbox: AtomicPtr::new(null_mut()),
            head: Cell::new(null_mut()),
            tail: Cell::new(null_mut()),
        }
    }
}

impl<T: Linked> Mailbox<T> {
    /// Puts an item in. True: the mailbox was free, the caller owns it now and must schedule its
    /// strand.
    #[must_use]
    pub fn post(&self, item: NonNull<T>) -> bool {
        let mut head = self.inbox.load(Ordering::Relaxed);
        loop {
            // SAFETY: the item is valid, and in no list yet.
            unsafe { item.as_ref() }.link().store(head, Ordering::Relaxed);
            // Release: the item's content and link, to the Acquire in `drain`.
            match self.inbox.compare_exchange_weak(
                head,
                item.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // AcqRel: either this swap comes before the one in `release`, whose Acquire then sees the
        // item; or it comes after, reads "free", and takes the mailbox over from that Release.
        !self.owned.swap(true, Ordering::AcqRel)
    }

    /// Takes the mailbox if it is free.
    #[must_use]
    pub fn claim(&self) -> bool {
        !self.owned.swap(true, Ordering::AcqRel)
    }

    /// Gives the mailbox up. False: something has been posted meanwhile, and the caller owns it
    /// still.
    ///
    /// # Safety
    ///
    /// The caller is the owner, and the ready list is empty.
    #[must_use]
    pub unsafe fn release(&self) -> bool {
        debug_assert!(self.head.get().is_null());
        self.owned.swap(false, Ordering::AcqRel);
        // A post that saw "owned" is in the inbox by now: take the mailbox back for it, unless a
        // later post has.
        self.inbox.load(Ordering::Relaxed).is_null() || self.owned.swap(true, Ordering::AcqRel)
    }

    /// Appends an item to the ready list, behind what has been posted: an item that is pushed back
    /// again and again must not keep posted ones waiting.
    ///
    /// # Safety
    ///
    /// The caller is the owner; the item is valid and in no list.
    pub unsafe fn push(&self, item: NonNull<T>) {
        // SAFETY: the caller is the owner.
        unsafe { self.drain() };
        // SAFETY: per contract; and what is in the list is valid.
        unsafe { item.as_ref() }.link().store(null_mut(), Ordering::Relaxed);
        let tail = self.tail.replace(item.as_ptr());
        if tail.is_null() {
            self.head.set(item.as_ptr());
        } else {
            // SAFETY: as above.
            unsafe { &*tail }.link().store(item.as_ptr(), Ordering::Relaxed);
        }
    }

    /// The item that has been ready for longest.
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    pub unsafe fn pop(&self) -> Option<NonNull<T>> {
        if self.head.get().is_null() {
            // SAFETY: the caller is the owner.
            unsafe { self.drain() };
        }
        let item = NonNull::new(self.head.get())?;
        // SAFETY: what is in the list is valid.
        let next = unsafe { item.as_ref() }.link().load(Ordering::Relaxed);
        self.head.set(next);
        if next.is_null() {
            self.tail.set(null_mut());
        }
        Some(item)
    }

    /// Is anything ready or posted?
    ///
    /// # Safety
    ///
    /// The caller is the owner.
    #[inline]
    pub unsafe fn has_ready(&self) -> bool {
        !self.head.get().is_null() || !self.inbox.load(Ordering::Relaxed).is_null()
    }

    /// Moves the inbox to the end of the ready list, oldest first.
    unsafe fn drain(&self) {
        if self.inbox.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut from = self.inbox.swap(null_mut(), Ordering::Acquire);
        let (mut oldest, newest) = (null_mut(), from);
        while let Some(item) = NonNull::new(from) {
            // SAFETY: what was posted is valid, and in the chain that we alone hold now.
            let link = unsafe { item.as_ref() }.link();
            from = link.load(Ordering::Relaxed);
            link.store(oldest, Ordering::Relaxed);
            oldest = item.as_ptr();
        }
        let tail = self.tail.replace(newest);
        if tail.is_null() {
            self.head.set(oldest);
        } else {
            // SAFETY: what is in the list is valid.
            unsafe { &*tail }.link().store(oldest, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Item(AtomicPtr<Item>, usize);
    // SAFETY: one word, used for nothing else; the tests keep their items alive.
    unsafe impl Linked for Item {
        fn link(&self) -> &AtomicPtr<Self> {
            &self.0
        }
    }

    fn items(n: usize) -> Vec<Item> {
        (0..n).map(|i| Item(AtomicPtr::default(), i)).collect()
    }

    #[test]
    fn first_in_first_out_through_both_lists() {
        let (mailbox, items) = (Mailbox::default(), items(6));
        assert!(mailbox.post((&items[0]).into()), "it was free");
        assert!(!mailbox.post((&items[1]).into()), "it is owned");
        // SAFETY: this thread owns the mailbox, since the first post.
        unsafe {
            assert_eq!(mailbox.pop().unwrap().as_ref().1, 0);
            mailbox.push((&items[2]).into());
            assert!(!mailbox.post((&items[3]).into()));
            for expected in [1, 2, 3] {
                assert_eq!(mailbox.pop().unwrap().as_ref().1, expected);
            }
            assert!(mailbox.pop().is_none() && mailbox.release());
            assert!(mailbox.post((&items[4]).into()));
            assert!(mailbox.pop().is_some());
            assert!(!mailbox.post((&items[5]).into()));
            assert!(!mailbox.release(), "a post since the last pop keeps it owned");
        }
    }

    /// Four threads post; whoever finds the mailbox free empties it. Each item must come out
    /// exactly once, by one owner at a time, and nothing may be left behind.
    #[test]
    fn nothing_is_lost_and_one_owns() {
        const N: usize = 20_000;
        let (mailbox, items) = (Mailbox::default(), items(4 * N));
        let (inside, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for part in items.chunks(N) {
                let (mailbox, inside, seen) = (&mailbox, &inside, &seen);
                s.spawn(move || {
                    for item in part {
                        if !mailbox.post(item.into()) {
                            continue;
                        }
                        loop {
                            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                            // SAFETY: the post, or a failed release, made us the owner.
                            while unsafe { mailbox.pop() }.is_some() {
                                seen.fetch_add(1, Ordering::Relaxed);
                            }
                            inside.fetch_sub(1, Ordering::Relaxed);
                            // SAFETY: as above.
                            if unsafe { mailbox.release() } {
                                break;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 4 * N);
    }
}
