//! The scheduler with closures in place of strands. Each test hangs, and fails by its limit, if a
//! wake-up is lost or a queue forgotten.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Runnable, Scheduler, Turn, Worker};

/// Only something lost takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// How often any ticker has told guests to look up.
static LOOKS: AtomicUsize = AtomicUsize::new(0);

type Run = Box<dyn FnMut(&Scheduler<Job>) -> Turn + Send>;

struct Job(Mutex<Run>);

impl Runnable for Job {
    type Local = ();

    fn rest((): &()) {}

    fn run(this: &Arc<Job>, worker: &Worker<Job>) -> Turn {
        (this.0.try_lock().expect("run twice at once"))(worker.scheduler())
    }
}

fn job(run: impl FnMut(&Scheduler<Job>) -> Turn + Send + 'static) -> Arc<Job> {
    Arc::new(Job(Mutex::new(Box::new(run))))
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        thread::yield_now();
    }
}

fn look_up() {
    LOOKS.fetch_add(1, SeqCst);
}

/// Runs `body` beside `workers` workers and a ticker, and stops them afterwards.
fn with(workers: usize, quantum: u64, body: impl FnOnce(&Arc<Scheduler<Job>>)) {
    let scheduler = Arc::new(Scheduler::new(workers, quantum).unwrap());
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let ticker = s.spawn(|| scheduler.run_ticker(look_up, || ()));
        let threads: Vec<_> =
            (0..workers).map(|_| s.spawn(|| scheduler.run(|| !stop.load(SeqCst)))).collect();
        body(&scheduler);
        stop.store(true, SeqCst);
        until("the workers leave", || {
            scheduler.wake_all();
            threads.iter().all(|thread| thread.is_finished())
        });
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_some()));
        scheduler.ticker().stop();
        ticker.join().unwrap();
    });
}

#[test]
fn whatever_is_scheduled_runs_once_although_workers_fall_asleep() {
    const PRODUCERS: usize = 3;
    const EACH: usize = 2_000;
    with(4, 1_000_000, |scheduler| {
        let ran = Arc::new(AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..PRODUCERS {
                s.spawn(|| {
                    for i in 0..EACH {
                        let ran = Arc::clone(&ran);
                        let run = move |_: &Scheduler<Job>| {
                            ran.fetch_add(1, SeqCst);
                            Turn::Idle
                        };
                        scheduler.schedule(job(run), true);
                        // Long enough, now and then, for all workers to sleep.
                        if i % 50 == 0 {
                            thread::sleep(Duration::from_micros(200));
                        }
                    }
                });
            }
        });
        until("all jobs run", || ran.load(SeqCst) >= PRODUCERS * EACH);
        assert_eq!(ran.load(SeqCst), PRODUCERS * EACH);
    });
}

/// A job that waits, on its worker, for another that only this worker would run by itself.
fn blocks_for_its_child(fresh: bool, quantum: u64) {
    with(2, quantum, |scheduler| {
        let (done, child_ran) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (parent_done, seen) = (Arc::clone(&done), Arc::clone(&child_ran));
        scheduler.active(2);
        let parent = job(move |scheduler| {
            let child_ran = Arc::clone(&seen);
            scheduler.schedule(
                job(move |scheduler| {
                    child_ran.store(true, SeqCst);
                    scheduler.active(-1);
                    Turn::Idle
                }),
                fresh,
            );
            until("a thief takes the child", || seen.load(SeqCst));
            scheduler.active(-1);
            parent_done.store(true, SeqCst);
            Turn::Idle
        });
        scheduler.schedule(parent, true);
        until("the parent ends", || done.load(SeqCst));
        let steals: u64 = scheduler.counters().map(|c| c.steals()).sum();
        assert_eq!(steals, 1);
    });
}

#[test]
fn a_thief_takes_from_the_queue_of_a_busy_worker() {
    blocks_for_its_child(true, 3_600_000_000_000);
}

#[test]
fn a_tick_wakes_a_thief_for_the_slot_of_a_busy_worker() {
    blocks_for_its_child(false, 1_000_000);
}

#[test]
fn jobs_that_go_again_share_one_worker_and_preempted_ones_too() {
    with(1, 1_000_000, |scheduler| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(3));
        for id in 0..3 {
            let (order, left, mut turns) = (Arc::clone(&order), Arc::clone(&left), 0);
            let run = move |_: &Scheduler<Job>| {
                // None goes ahead before all three are there.
                order.lock().unwrap().push(id);
                turns += 1;
                match (turns, id) {
                    (100, _) => {
                        left.fetch_sub(1, SeqCst);
                        Turn::Idle
                    }
                    (_, 2) => Turn::Preempted,
                    _ => Turn::Again,
                }
            };
            scheduler.schedule(job(run), true);
        }
        until("all three end", || left.load(SeqCst) == 0);
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 300);
        // While all are there none has two turns in a row more often than the injector's rhythm brings.
        let first_end = (0..3).map(|id| order.iter().rposition(|&o| o == id).unwrap()).min().unwrap();
        let last_start = (0..3).map(|id| order.iter().position(|&o| o == id).unwrap()).max().unwrap();
        let together = &order[last_start..first_end];
        let repeats = together.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(repeats * 10 <= together.len(), "{repeats} of {}: {order:?}", together.len());
    });
}

#[test]
fn it_ticks_while_somebody_waits_and_stands_still_otherwise() {
    with(1, 50_000, |scheduler| {
        let go_on = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&go_on);
        scheduler.active(1);
        let run = move |_: &Scheduler<Job>| {
            until("it may end", || !goes_on.load(SeqCst));
            Turn::Idle
        };
        scheduler.schedule(job(run), true);
        until("the job runs", || scheduler.attached_and_awake() == (1, 1));
        // It may have waited for the worker to wake up; a look that began then may be under way.
        thread::sleep(Duration::from_millis(5));
        let before = scheduler.tick();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(scheduler.tick(), before, "one job on one worker waits for nobody");
        scheduler.active(1);
        until("it ticks", || scheduler.tick() > 3);
        scheduler.active(-1);
        scheduler.urge();
        let before = LOOKS.load(SeqCst);
        until("guests are told to look up", || LOOKS.load(SeqCst) > before + 3);
        scheduler.unurge();
        go_on.store(false, SeqCst);
        scheduler.active(-1);
    });
}

#[test]
fn what_a_leaving_worker_has_is_left_to_others() {
    let scheduler = Arc::new(Scheduler::<Job>::new(2, 1_000_000).unwrap());
    let (ran, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, starts) = (Arc::clone(&ran), Arc::clone(&started));
    let parent = job(move |scheduler| {
        for i in 0..100 {
            let ran = Arc::clone(&counts);
            let run = move |_: &Scheduler<Job>| {
                ran.fetch_add(1, SeqCst);
                Turn::Idle
            };
            scheduler.schedule(job(run), i % 2 == 0);
        }
        starts.fetch_add(1, SeqCst);
        Turn::Idle
    });
    scheduler.schedule(parent, true);
    // The first worker leaves after one turn, with a hundred jobs in hand.
    assert!(scheduler.run(|| started.load(SeqCst) == 0).is_some());
    assert_eq!(ran.load(SeqCst), 0);
    assert!(scheduler.run(|| ran.load(SeqCst) < 100).is_some());
}
