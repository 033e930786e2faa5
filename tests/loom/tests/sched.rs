//! Work, sleep and the hand-over of the search: `sched::{mod, worker, idle, poller}` as they are.
//!
//! Each model has a job that some sleeping worker must be woken for, and ends when all jobs have been run: a lost wake-up
//! is a deadlock.
#[path = "support/jobs.rs"]
mod jobs;

use std::sync::Arc;

use models::gate::Gate;
use models::{model, model_within};
use jobs::World;

#[test]
fn work_from_outside_wakes_the_worker_that_sleeps() {
    model(|| {
        let world = World::new(1, 2);
        let worker = world.worker();
        world.add(true, |_| ());
        world.add(true, |_| ());
        worker.join().unwrap();
    });
}

/// Two jobs, of which one must be run while the other one is under way.
fn pair() -> (impl Fn(&World), impl Fn(&World)) {
    let gate = Arc::new(Gate::default());
    let opened = Arc::clone(&gate);
    (move |_: &World| gate.wait(), move |_: &World| opened.open())
}

#[test]
fn two_pieces_of_work_get_two_workers() {
    model_within(2, || {
        let world = World::new(2, 2);
        let (waits, opens) = pair();
        let workers = [world.worker(), world.worker()];
        world.add(true, waits);
        world.add(true, opens);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn who_stops_searching_hands_the_search_on() {
    model(|| {
        let world = World::new(2, 2);
        let (waits, opens) = pair();
        let worker = world.worker();
        world.add(true, waits);
        world.add(true, opens);
        world.work();
        worker.join().unwrap();
    });
}

#[test]
fn new_work_of_a_worker_is_found_by_another_one() {
    model(|| {
        let world = World::new(2, 2);
        let worker = world.worker();
        let (waits, opens) = pair();
        let again = Arc::clone(&world);
        let opens = std::cell::Cell::new(Some(opens));
        world.add(true, move |world| {
            again.add(true, opens.take().unwrap());
            waits(world);
        });
        world.work();
        worker.join().unwrap();
    });
}
