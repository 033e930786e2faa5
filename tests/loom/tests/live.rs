//! The list of live fibers (`wasm::live`), with fibers and workers that are no more than it knows of them.

mod fiber {
    pub use crate::fakes::Fiber;
}
mod strand {
    pub use crate::fakes::Strand;
}
mod sched {
    pub use crate::fakes::Worker;
}
mod end {
    pub trait Wake: Send + Sync {
        fn wake(&self);
    }
}
mod sys {
    pub use models::sys::{barrier, clock};

    pub mod sync {
        pub use crate::fakes::Arc;
        pub use models::sys::sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic, capacity};
    }
}

#[path = "support/fakes.rs"]
mod fakes;
#[allow(dead_code)]
#[path = "../../../src/wasm/live.rs"]
mod live;
#[allow(dead_code)]
#[path = "../../../src/wasm/room.rs"]
mod room;

use std::sync::Arc;

use fakes::{Fiber, Strand, Worker};
use live::Live;
use loom::thread;
use models::gate::Gate;
use models::sys::sync::atomic::{AtomicUsize, Ordering};
use models::model;

/// A list and the fibers that may be on it, whose memory stays.
struct World {
    live: Live,
    fibers: [Fiber; 2],
    /// Fibers of a strand that have not ended (`Strand::users`).
    users: AtomicUsize,
    gate: Gate,
}

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

fn world() -> Arc<World> {
    let live = Live::new(usize::MAX, 2);
    let fibers = Default::default();
    Arc::new(World { live, fibers, users: AtomicUsize::new(0), gate: Default::default() })
}

fn worker(index: usize) -> Worker<Strand> {
    Worker::new(index)
}

impl World {
    /// The end of a fiber, as in `Strand::retire`.
    fn retire(&self, i: usize, worker: Option<&Worker<Strand>>) {
        self.live.unlist(&self.fibers[i], worker);
        self.fibers[i].drop_own();
    }

    /// As in `Shared`.
    fn look_for_the_end(&self) {
        if self.live.is_over() {
            self.gate.open();
        }
    }

    /// As in `Shared`.
    fn look_instead(&self) {
        if self.live.is_of_interest() {
            sys::barrier::heavy();
            self.look_for_the_end();
        }
    }
}

#[test]
fn who_looks_takes_no_reference_to_a_fiber_that_is_gone() {
    model(|| {
        let world = world();
        let again = Arc::clone(&world);
        let spawner = thread::spawn(move || {
            let worker = worker(0);
            assert!(again.live.list(&again.fibers[0], Some(&worker)));
            again.retire(0, Some(&worker));
            // It gets the place of the former.
            assert!(again.live.list(&again.fibers[1], Some(&worker)));
            again.retire(1, Some(&worker));
            worker.local().places.flush();
        });
        for _ in 0..2 {
            let all = world.live.all(false);
            assert!(all.len() <= 1);
        }
        spawner.join().unwrap();
        assert!(world.fibers.iter().all(Fiber::is_gone));
        assert!(world.live.is_empty() && world.live.all(false).is_empty());
        assert_eq!(world.live.spawned(), 2);
    });
}

#[test]
fn who_closes_the_list_finds_each_fiber_that_is_not_refused() {
    model(|| {
        let world = world();
        let spawners = [Some(0), None].into_iter().enumerate().map(|(i, index)| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let worker = index.map(worker);
                let listed = world.live.list(&world.fibers[i], worker.as_ref());
                if !listed {
                    world.retire(i, worker.as_ref());
                }
                listed
            })
        });
        let spawners: Vec<_> = spawners.collect();
        let all = world.live.all(true);
        let found = all.iter().map(|fiber| &raw const **fiber).collect::<Vec<_>>();
        drop(all);
        let mut listed = 0;
        for (spawner, fiber) in spawners.into_iter().zip(&world.fibers) {
            if spawner.join().unwrap() {
                listed += 1;
                assert!(found.contains(&(&raw const *fiber)), "neither found nor refused");
                assert!(!fiber.is_gone());
            } else {
                assert!(fiber.is_gone());
            }
        }
        assert_eq!((world.live.spawned(), world.live.is_empty()), (listed, listed == 0));
    });
}

#[test]
fn who_waits_for_the_end_is_told_of_it() {
    model(|| {
        let world = world();
        let workers = [0, 1].map(|i| {
            let world = Arc::clone(&world);
            assert!(world.live.list(&world.fibers[i], None));
            thread::spawn(move || {
                world.retire(i, Some(&worker(i)));
                world.look_for_the_end();
            })
        });
        let interest = world.live.interest();
        // As those do that are workers until no fiber is left.
        if !world.live.is_empty() {
            world.gate.wait();
        }
        // And as those that only wait.
        assert!(interest.wait(None));
        drop(interest);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// One fiber of a strand leaves while another one is counted, but does not come after all.
#[test]
fn a_fiber_that_does_not_come_after_all_hides_no_end() {
    model(|| {
        let world = world();
        world.users.fetch_add(1, Ordering::Relaxed);
        assert!(world.live.list(&world.fibers[0], None));
        let leaves = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                // As in `Strand::retire`.
                world.users.fetch_sub(1, Ordering::AcqRel);
                world.retire(0, Some(&worker(0)));
                if world.users.load(Ordering::Relaxed) == 0 {
                    world.look_for_the_end();
                }
            })
        };
        let refused = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.users.fetch_add(1, Ordering::Relaxed);
                // As in `Strand::take_back_fiber`.
                if world.users.fetch_sub(1, Ordering::AcqRel) == 1 {
                    world.look_instead();
                }
            })
        };
        let interest = world.live.interest();
        if !world.live.is_empty() {
            world.gate.wait();
        }
        drop(interest);
        leaves.join().unwrap();
        refused.join().unwrap();
    });
}

#[test]
fn while_a_fiber_is_there_nobody_finds_none() {
    model(|| {
        let world = world();
        assert!(world.live.list(&world.fibers[0], None));
        let again = Arc::clone(&world);
        let worker = thread::spawn(move || {
            // The first comes from outside and ends there; it has spawned another one meanwhile, which stays.
            assert!(again.live.list(&again.fibers[1], Some(&worker(0))));
            again.retire(0, None);
        });
        assert!(!world.live.is_empty());
        worker.join().unwrap();
        assert!(!world.live.is_empty());
    });
}

/// The same on two workers, which both count for the first time.
#[test]
fn a_fiber_that_moves_on_is_there_all_the_time() {
    model(|| {
        let world = world();
        assert!(world.live.list(&world.fibers[0], None));
        let spawned = Arc::new(Gate::default());
        let workers = [0, 1].map(|i| {
            let (world, spawned) = (Arc::clone(&world), Arc::clone(&spawned));
            thread::spawn(move || match i {
                0 => {
                    assert!(world.live.list(&world.fibers[1], Some(&worker(0))));
                    spawned.open();
                }
                _ => {
                    spawned.wait();
                    world.retire(0, Some(&worker(1)));
                }
            })
        });
        assert!(!world.live.is_empty());
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
