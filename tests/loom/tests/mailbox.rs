//! A strand's mailbox (`sched::mailbox`) between those who post and whoever owns it.

use std::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use models::model;
use models::sched::mailbox::{Linked, Mailbox};
use models::sys::sync::atomic::AtomicPtr;

/// Something to post, and what its poster has put into it.
#[derive(Default)]
struct Item {
    link: AtomicPtr<Item>,
    content: UnsafeCell<usize>,
}

// SAFETY: one word, used for nothing else; the models keep their items alive.
unsafe impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Item> {
        &self.link
    }
}

struct World {
    mailbox: Mailbox<Item>,
    items: [Item; 3],
    /// Which items came out, in which order: the owner's. loom sees if two own it.
    seen: UnsafeCell<Vec<usize>>,
}

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    fn new() -> Arc<World> {
        let items = Default::default();
        Arc::new(World { mailbox: Mailbox::default(), items, seen: UnsafeCell::new(Vec::new()) })
    }

    /// Posts an item, and empties the mailbox if that made this thread its owner.
    fn post(&self, i: usize) {
        let item = &self.items[i];
        // SAFETY: nobody else has it yet.
        item.content.with_mut(|content| unsafe { *content = i + 1 });
        if self.mailbox.post(NonNull::from(item)) {
            self.own(false);
        }
    }

    /// What an owner does; `yields`: the first item is put back once.
    fn own(&self, mut yields: bool) {
        loop {
            // SAFETY: the caller, or a release that has failed, made us the owner; here and below.
            while let Some(item) = unsafe { self.mailbox.pop() } {
                if std::mem::take(&mut yields) {
                    // SAFETY: as above; it is in no list.
                    unsafe { self.mailbox.push(item) };
                    continue;
                }
                // SAFETY: it came out of the mailbox, so its poster is done with it; loom checks it.
                let content = unsafe { item.as_ref() }.content.with(|content| unsafe { *content });
                assert_ne!(content, 0);
                // SAFETY: the owner's.
                self.seen.with_mut(|seen| unsafe { &mut *seen }.push(content - 1));
            }
            // SAFETY: as above, and it is empty.
            if unsafe { self.mailbox.release() } {
                return;
            }
        }
    }

    /// Each item came out once, nothing is left, and nobody owns it.
    fn check(&self, expected: &[usize]) {
        // SAFETY: all other threads have ended.
        let mut seen = self.seen.with(|seen| unsafe { &*seen }.clone());
        seen.sort_unstable();
        assert_eq!(seen, expected);
        assert!(self.mailbox.claim(), "it is free");
        // SAFETY: so it is ours.
        assert!(unsafe { !self.mailbox.has_ready() && self.mailbox.pop().is_none() });
    }
}

#[test]
fn each_item_comes_out_once_and_one_owns_at_a_time() {
    model(|| {
        let world = World::new();
        let posters = [0, 1].map(|i| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.post(i))
        });
        world.post(2);
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        world.check(&[0, 1, 2]);
    });
}

#[test]
fn one_who_posts_again_finds_it_free_or_owned() {
    model(|| {
        let world = World::new();
        let again = Arc::clone(&world);
        let poster = thread::spawn(move || {
            again.post(0);
            again.post(1);
        });
        world.post(2);
        poster.join().unwrap();
        world.check(&[0, 1, 2]);
        // SAFETY: all other threads have ended.
        let seen = world.seen.with(|seen| unsafe { &*seen }.clone());
        let at = |i| seen.iter().position(|&s| s == i);
        assert!(at(0) < at(1), "first in, first out");
    });
}

#[test]
fn who_claims_it_has_it_alone() {
    model(|| {
        let world = World::new();
        let posters = [0, 1].map(|i| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.post(i))
        });
        if world.mailbox.claim() {
            world.own(true);
        }
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        world.check(&[0, 1]);
    });
}
