//! Sleep and wake-up (`sched::idle`) over a queue that orders nothing by itself: a relaxed count. What keeps a wake-up from
//! being lost are then the two fences alone.
//!
//! `tests/sched.rs` has the workers as they are; their queues have orders of their own.

mod sched {
    pub mod poller;

    #[allow(dead_code)]
    #[path = "../../../../src/sched/idle.rs"]
    pub mod idle;
}
use models::sys;

use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use models::model;
use models::sys::sync::atomic::{AtomicUsize, Ordering, fence};
use sched::idle::Idle;
use sched::poller::Poller;

struct World {
    idle: Idle,
    poller: Poller,
    /// Work in the queue, and work that has not been done.
    queue: AtomicUsize,
    left: AtomicUsize,
}

impl World {
    fn new(used: bool, work: usize) -> Arc<World> {
        let (queue, left) = (AtomicUsize::new(0), AtomicUsize::new(work));
        Arc::new(World { idle: Idle::new(2), poller: Poller::new(used), queue, left })
    }

    /// As `Scheduler::schedule`, from a thread that is no worker.
    fn add(&self) {
        self.queue.fetch_add(1, Ordering::Relaxed);
        self.announce();
    }

    /// As in `Scheduler`.
    fn announce(&self) {
        fence(Ordering::SeqCst);
        self.idle.wake_one(&self.poller);
    }

    fn take(&self) -> bool {
        let less = |n: usize| n.checked_sub(1);
        self.queue.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn is_done(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    fn done(&self, n: usize) {
        if n > 0 && self.left.fetch_sub(n, Ordering::AcqRel) == n {
            self.idle.wake_all(&self.poller);
        }
    }

    /// As `Worker::search_or_sleep`: false when all work is done.
    fn search_or_sleep(&self, index: usize) -> bool {
        self.idle.begin_search();
        loop {
            let found = self.take();
            if found || self.is_done() {
                if self.idle.end_search() {
                    // `any_work` of the real one has this fence, in the deque.
                    fence(Ordering::SeqCst);
                    if self.queue.load(Ordering::Relaxed) > 0 {
                        self.announce();
                    }
                }
                return found;
            }
            let look = || self.queue.load(Ordering::Relaxed) > 0 || self.is_done();
            let events = self.idle.sleep(index, &self.poller, look);
            self.done(events.0);
        }
    }

    fn worker(self: &Arc<World>, index: usize) -> JoinHandle<()> {
        let world = Arc::clone(self);
        thread::spawn(move || {
            world.idle.attach();
            while world.search_or_sleep(index) {
                world.done(1);
            }
            world.idle.detach();
        })
    }

    /// Nobody searches or sleeps any more.
    fn check(&self) {
        assert_eq!(self.idle.workers(), (0, 0));
        self.idle.begin_search();
        assert!(self.idle.end_search());
        assert!(!self.idle.any_asleep());
    }
}

#[test]
fn who_makes_work_wakes_who_sleeps() {
    model(|| {
        let world = World::new(false, 2);
        let worker = world.worker(0);
        world.add();
        world.add();
        worker.join().unwrap();
        world.check();
    });
}

#[test]
fn two_who_make_work_leave_none_of_it() {
    model(|| {
        let world = World::new(false, 2);
        let worker = world.worker(0);
        let again = Arc::clone(&world);
        let other = thread::spawn(move || again.add());
        world.add();
        other.join().unwrap();
        worker.join().unwrap();
        world.check();
    });
}

#[test]
fn who_sleeps_in_the_poller_is_woken_there() {
    model(|| {
        let world = World::new(true, 2);
        let worker = world.worker(0);
        world.add();
        world.add();
        worker.join().unwrap();
        world.check();
    });
}

#[test]
fn an_event_and_a_wake_up_that_meet_are_both_seen() {
    model(|| {
        let world = World::new(true, 3);
        let worker = world.worker(0);
        world.poller.happen();
        world.add();
        world.add();
        worker.join().unwrap();
        world.check();
    });
}

#[test]
fn two_workers_do_all_and_hear_of_the_end() {
    model(|| {
        let world = World::new(true, 1);
        let workers = [0, 1].map(|index| world.worker(index));
        world.add();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        world.check();
    });
}
