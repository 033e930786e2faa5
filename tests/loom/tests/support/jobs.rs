//! The scheduler's jobs, as closures.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::Mutex;

use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{AcqRel, Acquire};
use loom::thread::{self, JoinHandle};
use models::sched::{Runnable, Scheduler, Turn, Worker};

pub type Run = Box<dyn FnMut(&Scheduler<Job>) -> Turn>;

/// A strand that runs a closure.
pub struct Job(Mutex<Run>);

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Runnable for Job {
    type Local = ();

    fn rest((): &()) {}

    fn run(this: &Arc<Job>, worker: &Worker<Job>) -> Turn {
        (this.0.try_lock().expect("run twice at once"))(worker.scheduler())
    }
}

pub fn job(run: impl FnMut(&Scheduler<Job>) -> Turn + 'static) -> Arc<Job> {
    Arc::new(Job(Mutex::new(Box::new(run))))
}

/// A scheduler, and how many jobs have still to be run.
pub struct World {
    pub scheduler: Scheduler<Job>,
    pub left: AtomicUsize,
}

pub const QUANTUM: u64 = 1_000_000;

impl World {
    pub fn new(workers: usize, jobs: usize) -> Arc<World> {
        let scheduler = Scheduler::new(workers, QUANTUM).unwrap();
        Arc::new(World { scheduler, left: AtomicUsize::new(jobs) })
    }

    /// A thread that is a worker until all jobs have been run.
    pub fn worker(self: &Arc<World>) -> JoinHandle<()> {
        let world = Arc::clone(self);
        thread::spawn(move || world.work())
    }

    pub fn work(&self) {
        self.scheduler.run(|| self.left.load(Acquire) > 0).expect("there is a place");
    }

    /// A job has been run. As at the end of a runtime's last fiber, all workers are told.
    pub fn done(&self) {
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.scheduler.wake_all();
        }
    }

    /// Schedules a job that counts itself.
    pub fn add(self: &Arc<World>, fresh: bool, run: impl Fn(&World) + 'static) {
        let world = Arc::clone(self);
        let run = job(move |_| {
            run(&world);
            world.done();
            Turn::Idle
        });
        self.scheduler.schedule(run, fresh);
    }
}
