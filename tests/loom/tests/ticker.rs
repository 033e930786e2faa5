//! The ticker's sleep: `sched::{ticker, timers, load}` as they are. A tick that does not come is a deadlock.
//!
//! Short waits of the ticker end at once, long ones only when it is woken (`sys::clock`).
#[path = "support/jobs.rs"]
mod jobs;

use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use models::sched::timers::{Expire, Key};
use models::gate::Gate;
use models::{model, model_within};
use jobs::{QUANTUM, World};

/// The ticker's thread, which opens a gate at the first tick, and ends with it, or when it is told to.
fn ticker(world: &Arc<World>, ticked: &Arc<Gate>) -> JoinHandle<()> {
    let (world, ticked) = (Arc::clone(world), Arc::clone(ticked));
    thread::spawn(move || {
        let tick = || {
            ticked.open();
            world.scheduler.ticker().stop();
        };
        world.scheduler.run_ticker(tick, || ());
    })
}

#[test]
fn demand_on_a_worker_wakes_the_ticker() {
    model(|| {
        let world = World::new(1, 1);
        let ticked = Arc::new(Gate::default());
        let ticker = ticker(&world, &ticked);
        // Two fibers, of which one has the only worker until there is a tick.
        world.add(true, move |world| {
            world.scheduler.active(1);
            world.scheduler.active(1);
            ticked.wait();
            world.scheduler.active(-2);
        });
        world.work();
        world.scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}

#[test]
fn demand_from_outside_wakes_the_ticker() {
    model_within(2, || {
        let world = World::new(1, 1);
        let ticked = Arc::new(Gate::default());
        let ticker = ticker(&world, &ticked);
        world.add(true, move |world| {
            ticked.wait();
            world.scheduler.active(-2);
        });
        let worker = world.worker();
        world.scheduler.active(1);
        world.scheduler.active(1);
        worker.join().unwrap();
        world.scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}

#[test]
fn a_worker_that_falls_asleep_leaves_its_demand_to_the_ticker() {
    model_within(2, || {
        let world = World::new(1, 1);
        let ticked = Arc::new(Gate::default());
        // As long as the worker is awake, it is there for the only fiber.
        world.scheduler.active(1);
        let ticker = ticker(&world, &ticked);
        let worker = world.worker();
        ticked.wait();
        world.add(true, |_| ());
        worker.join().unwrap();
        ticker.join().unwrap();
    });
}

#[test]
fn an_urge_wakes_the_ticker() {
    model(|| {
        let world = World::new(1, 1);
        let ticked = Arc::new(Gate::default());
        let ticker = ticker(&world, &ticked);
        world.add(true, move |world| {
            world.scheduler.urge_soon();
            ticked.wait();
            world.scheduler.unurge();
        });
        world.work();
        world.scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}

struct Fires(Arc<Gate>);

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for Fires {}
// SAFETY: as above.
unsafe impl Sync for Fires {}

impl Expire for Fires {
    fn expire(&self, _: Key) {
        self.0.open();
    }
}

#[test]
fn a_timer_that_is_the_earliest_wakes_the_ticker() {
    model(|| {
        let world = World::new(1, 0);
        let (ticked, fired) = (Arc::default(), Arc::new(Gate::default()));
        let ticker = ticker(&world, &ticked);
        let now = models::sys::clock::now();
        world.scheduler.time(now + 100 * models::sys::clock::NEAR, Arc::new(Fires(Arc::default())));
        world.scheduler.time(now + QUANTUM, Arc::new(Fires(Arc::clone(&fired))));
        fired.wait();
        world.scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}
