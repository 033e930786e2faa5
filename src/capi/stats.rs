//! Numbers. Each structure starts with its size, which the caller sets: fields may be added at the
//! end, and programs built before still work.

use std::sync::atomic::Ordering;

use super::{bop_fiber_t, bop_runtime_t, call, copy_sized};
use crate::sched::Counters;

/// What a runtime has counted since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct bop_stats_t {
    /// `sizeof(bop_stats_t)`, set by the caller.
    pub size: usize,
    /// Background workers, as configured.
    pub workers: u64,
    /// Fibers that were spawned.
    pub spawned: u64,
    /// Fibers that have ended.
    pub finished: u64,
    /// Fibers that live.
    pub live: u64,
    /// Times that a fiber was resumed.
    pub switches: u64,
    /// Times that a guest lost its turn at an epoch check.
    pub preemptions: u64,
    /// Times that a worker took strands from another one.
    pub steals: u64,
    /// Times that a fiber began to wait.
    pub parks: u64,
    /// Times that a worker woke a fiber; threads that are no workers are not counted.
    pub wakes: u64,
    /// Ticks of the clock that ends time slices; it stands still while nobody waits for a turn.
    pub ticks: u64,
}

/// What a worker has counted since its runtime was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct bop_worker_stats_t {
    /// `sizeof(bop_worker_stats_t)`, set by the caller.
    pub size: usize,
    /// CPU time of the thread that is this worker, in nanoseconds; 0 if none is.
    pub cpu_ns: u64,
    /// Times that it resumed a fiber.
    pub switches: u64,
    /// Times that a guest lost its turn on it.
    pub preemptions: u64,
    /// Times that it took strands from another worker.
    pub steals: u64,
    /// Times that a fiber on it began to wait.
    pub parks: u64,
    /// Times that it woke a fiber.
    pub wakes: u64,
}

/// When things happened to a fiber: `CLOCK_MONOTONIC`, in nanoseconds; 0 = not yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct bop_times_t {
    /// `sizeof(bop_times_t)`, set by the caller.
    pub size: usize,
    /// It was spawned.
    pub spawned_ns: u64,
    /// Its first slice began.
    pub started_ns: u64,
    /// It ended.
    pub finished_ns: u64,
}

/// Fills in `*stats`, as far as its `size` says that it reaches. Does nothing if either is NULL.
///
/// Context: any thread or fiber. The numbers are a moment old, each for itself.
/// Switches: never.
///
/// # Safety
///
/// `runtime` is NULL or live; `stats` is NULL, or as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_stats(runtime: *const bop_runtime_t, stats: *mut bop_stats_t) {
    call((), || {
        // SAFETY: per contract.
        let Some(runtime) = (unsafe { runtime.as_ref() }) else { return };
        if stats.is_null() {
            return;
        }
        let shared = &runtime.0.shared;
        let sum = |count: fn(&Counters) -> u64| shared.scheduler.counters().map(count).sum();
        // In this order, so that there are never fewer than those that have ended.
        let finished = sum(Counters::finished);
        let spawned = shared.live.spawned();
        let all = bop_stats_t {
            size: 0,
            workers: runtime.0.workers() as u64,
            spawned,
            finished,
            live: spawned.saturating_sub(finished),
            switches: sum(Counters::switches),
            preemptions: sum(Counters::preemptions),
            steals: sum(Counters::steals),
            parks: sum(Counters::parks),
            wakes: sum(Counters::wakes),
            ticks: shared.scheduler.tick(),
        };
        // SAFETY: per contract; 64-bit integers only.
        unsafe { copy_sized(stats, &all) };
    });
}

/// Fills in `*stats` for one worker. The workers of `bop_runtime_start` and of `bop_run` share one
/// numbering, from 0 up, in the order in which they came.
///
/// Returns: whether there is such a worker (as many as are configured, and as ever were), and neither
/// pointer is NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// As for `bop_runtime_stats`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_runtime_worker_stats(
    runtime: *const bop_runtime_t,
    worker: usize,
    stats: *mut bop_worker_stats_t,
) -> bool {
    call(false, || {
        // SAFETY: per contract.
        let Some(runtime) = (unsafe { runtime.as_ref() }) else { return false };
        let scheduler = &runtime.0.shared.scheduler;
        let there = worker < runtime.0.workers().max(scheduler.reach());
        let found = there.then(|| scheduler.worker_stats(worker)).flatten();
        let Some((counters, cpu)) = found.filter(|_| !stats.is_null()) else { return false };
        let all = bop_worker_stats_t {
            size: 0,
            cpu_ns: cpu.unwrap_or(0),
            switches: counters.switches(),
            preemptions: counters.preemptions(),
            steals: counters.steals(),
            parks: counters.parks(),
            wakes: counters.wakes(),
        };
        // SAFETY: per contract; 64-bit integers only.
        unsafe { copy_sized(stats, &all) };
        true
    })
}

/// Fills in `*times`. The runtime must have been made with `bop_config_timing`.
///
/// Returns: whether it was, and neither pointer is NULL.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `fiber` is NULL or a live handle; `times` is NULL, or as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_fiber_times(fiber: *const bop_fiber_t, times: *mut bop_times_t) -> bool {
    call(false, || {
        // SAFETY: per contract.
        let Some(fiber) = (unsafe { bop_fiber_t::get(fiber) }) else { return false };
        if times.is_null() || !fiber.shared().limits.timing {
            return false;
        }
        let all = bop_times_t {
            size: 0,
            spawned_ns: fiber.times.spawned.load(Ordering::Relaxed),
            started_ns: fiber.times.started.load(Ordering::Relaxed),
            finished_ns: fiber.times.finished.load(Ordering::Relaxed),
        };
        // SAFETY: per contract; 64-bit integers only.
        unsafe { copy_sized(times, &all) };
        true
    })
}
