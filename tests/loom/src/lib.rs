//! The files of libbop that hold its protocols, with loom's locks and atomics, and a kernel and a clock of their own.
//! README.md tells what the models promise, and how each was seen to fail.
#![allow(dead_code, missing_docs)]

pub mod gate;
#[path = "../../../src/sched/mod.rs"]
pub mod sched;
#[path = "../../../src/fiber/state.rs"]
pub mod state;
pub mod sys;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::model::Builder;

/// Preemptions that an execution may have, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const PREEMPTIONS: usize = 3;
/// Steps after which an execution is taken for one that never ends.
const STEPS: usize = 20_000;

/// Goes through all executions of a model, with at most so many preemptions.
pub fn model(body: impl Fn() + Send + Sync + 'static) {
    model_within(PREEMPTIONS, body)
}

/// The same, for one that needs another limit.
pub fn model_within(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    let body = move || {
        count.fetch_add(1, Ordering::Relaxed);
        sys::boot();
        body();
    };
    if std::env::var_os("LOOM_LOG").is_some() {
        return loom::model(body);
    }
    traced::trail::show();
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = STEPS;
    let began = std::time::Instant::now();
    builder.check(body);
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions, {:.1} s", began.elapsed().as_secs_f32());
    assert!(executions > 1, "there was nothing to interleave");
}
