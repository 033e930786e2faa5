//! Sleep in the poller: `sched::{poller, idle, worker}` as they are, over a kernel whose wake is sticky.
#[path = "support/jobs.rs"]
mod jobs;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::thread::{self, JoinHandle};
use models::sched::poller::{READABLE, Ready};
use models::gate::Gate;
use models::{model, model_within};
use jobs::World;

/// The number of a descriptor.
const FD: i32 = 1000;

/// Nothing happens to what it waits for.
struct Never;

impl Ready for Never {
    fn ready(&self, _: u32) {
        unreachable!();
    }

    fn closed(&self) {
        unreachable!();
    }
}

/// A job that is run when a descriptor is ready.
struct Later(Arc<World>);

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for Later {}
// SAFETY: as above.
unsafe impl Sync for Later {}

impl Ready for Later {
    fn ready(&self, events: u32) {
        assert_eq!(events, READABLE);
        self.0.add(false, |_| ());
    }

    fn closed(&self) {
        unreachable!();
    }
}

/// From now on a worker that sleeps does so in the poller.
fn use_poller(world: &World) -> u64 {
    world.scheduler.wait_fd(FD, READABLE, Arc::new(Never)).unwrap()
}

#[test]
fn work_wakes_the_worker_in_the_poller() {
    model(|| {
        let world = World::new(1, 2);
        use_poller(&world);
        let worker = world.worker();
        world.add(true, |_| ());
        world.add(true, |_| ());
        worker.join().unwrap();
    });
}

#[test]
fn an_event_wakes_the_worker_in_the_poller() {
    model(|| {
        let world = World::new(1, 2);
        world.scheduler.wait_fd(FD, READABLE, Arc::new(Later(Arc::clone(&world)))).unwrap();
        let worker = world.worker();
        rustix::happen(FD);
        world.add(true, |_| ());
        worker.join().unwrap();
    });
}

#[test]
fn of_two_that_sleep_one_is_in_the_poller_and_both_can_be_woken() {
    model_within(2, || {
        let world = World::new(2, 2);
        use_poller(&world);
        let gate = Arc::new(Gate::default());
        let opened = Arc::clone(&gate);
        let worker = world.worker();
        world.add(true, move |_| gate.wait());
        world.add(true, move |_| opened.open());
        world.work();
        worker.join().unwrap();
    });
}

#[test]
fn who_waits_no_more_leaves_nobody_behind_in_the_poller() {
    model(|| {
        let world = World::new(1, 1);
        let key = use_poller(&world);
        let worker = world.worker();
        world.scheduler.wait_fd_no_more(FD, key);
        world.add(true, |_| ());
        worker.join().unwrap();
    });
}

#[test]
fn a_host_that_looks_in_leaves_no_worker_behind_in_the_poller() {
    model(|| {
        let world = World::new(2, 2);
        use_poller(&world);
        let worker = world.worker();
        world.add(true, |_| ());
        world.scheduler.run_for(u64::MAX - 1).unwrap();
        world.add(true, |_| ());
        worker.join().unwrap();
    });
}

/// A host's own loop: it watches, and looks in, until all jobs have been run.
fn host(world: &Arc<World>) -> JoinHandle<()> {
    let world = Arc::clone(world);
    let watched = world.scheduler.watch();
    thread::spawn(move || {
        while world.left.load(Ordering::Acquire) > 0 {
            rustix::wait_readable(watched);
            world.scheduler.run_for(u64::MAX - 1).unwrap();
        }
    })
}

#[test]
fn a_host_that_watches_is_told_of_work() {
    model(|| {
        let world = World::new(1, 2);
        let host = host(&world);
        world.add(true, |_| ());
        world.add(true, |_| ());
        host.join().unwrap();
    });
}

#[test]
fn the_ticker_takes_no_word_from_a_host_that_watches() {
    model_within(1, || {
        let world = World::new(1, 1);
        use_poller(&world);
        let watched = world.scheduler.watch();
        let ticker = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.scheduler.run_ticker(|| (), || ()))
        };
        world.scheduler.run_for(u64::MAX - 1).unwrap();
        world.add(true, |_| ());
        rustix::wait_readable(watched);
        world.scheduler.run_for(u64::MAX - 1).unwrap();
        world.scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}

#[test]
fn a_worker_that_leaves_tells_a_host_that_watches_what_it_leaves() {
    model(|| {
        let world = World::new(2, 1);
        let watched = world.scheduler.watch();
        let worker = {
            let world = Arc::clone(&world);
            // No fiber is left, so this one goes.
            thread::spawn(move || world.scheduler.run(|| false).unwrap())
        };
        world.add(true, |_| ());
        rustix::wait_readable(watched);
        world.scheduler.run_for(u64::MAX - 1).unwrap();
        worker.join().unwrap();
    });
}
