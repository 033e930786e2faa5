//! What the fibers of a runtime share. It lives as long as any of them, or any handle.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wasmtime::{Engine, Module};
use wasmtime_c_api::wasm_engine_t;

use super::live::Live;
use super::strand::Strand;
use crate::fiber::stack::Pool;
use crate::sched::helpers::Helpers;
use crate::sched::{Scheduler, Worker};
use crate::sys::barrier;

/// See the head of this file.
pub struct Shared {
    pub scheduler: Scheduler<Strand>,
    pub engine: Engine,
    /// The same engine, as C takes it.
    pub c_engine: Box<wasm_engine_t>,
    pub pool: Pool,
    pub live: Live,
    /// The last id that was given to a fiber, or to a worker to give.
    pub last_id: AtomicU64,
    /// Background workers run, or are on their way.
    pub background: AtomicBool,
    /// Threads that are workers in `bop_run`, or want to be.
    pub lent: AtomicUsize,
    /// Background workers must end.
    pub stop: AtomicBool,
    /// The host threads that have entered a store; one that has entered two is there twice.
    pub inside: Mutex<Vec<u64>>,
    /// Threads that make blocking calls.
    pub helpers: Arc<Helpers>,
    pub limits: Limits,
    /// See `shadow`; compiled when first needed.
    pub probe: OnceLock<Result<Module, String>>,
}

/// Ids that a worker takes at a time.
const IDS: u64 = 64;

impl Shared {
    /// An id for a fiber that is spawned on this worker, or on none.
    pub fn next_id(&self, worker: Option<&Worker<Strand>>) -> u64 {
        let Some(worker) = worker else { return self.last_id.fetch_add(1, Ordering::Relaxed) + 1 };
        let ids = &worker.local().ids;
        let (mut last, mut end) = ids.get();
        if last == end {
            last = self.last_id.fetch_add(IDS, Ordering::Relaxed);
            end = last + IDS;
        }
        ids.set((last + 1, end));
        last + 1
    }

    /// See `inside`.
    pub fn threads_inside(&self) -> MutexGuard<'_, Vec<u64>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fiber has left, and none of its strand is there or on its way: was it the last of all?
    pub fn look_for_the_end(&self) {
        if self.live.is_over() {
            // Those that run until no fiber is left.
            self.scheduler.wake_all();
        }
    }

    /// A fiber that was counted in its strand, as the last one, is not to come after all. One that has left in between may
    /// have seen the count, and then has not looked.
    pub fn look_instead(&self) {
        // Partner: the light side in `unlist`, before the strand's fibers are counted.
        if self.live.is_of_interest() {
            barrier::heavy();
            self.look_for_the_end();
        }
    }

    /// Is there no worker, nor one on its way?
    pub fn is_deserted(&self) -> bool {
        self.scheduler.attached() == 0 && !self.background.load(Ordering::Acquire)
    }
}

/// What the configuration fixes for all fibers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a fiber's stack, unless the spawn says otherwise.
    pub stack_size: usize,
    /// The part of each stack that Wasm leaves to host functions.
    pub host_stack: usize,
    /// Fibers that may live at a time.
    pub max_fibers: usize,
    /// Switch at every epoch check.
    pub every_check: bool,
    /// Note when each fiber was spawned, started and ended.
    pub timing: bool,
}

/// Wasm must have at least this much of a stack.
pub const MIN_WASM_STACK: usize = 16 * 1024;

impl Limits {
    /// Can a fiber live on a stack of this size?
    pub fn check_stack(&self, size: usize) -> Result<(), String> {
        let least = self.host_stack.saturating_add(MIN_WASM_STACK);
        if size < least {
            return Err(format!(
                "a stack of {size} bytes is too small: {} are reserved for host functions and Wasm \
                 needs at least {MIN_WASM_STACK}",
                self.host_stack
            ));
        }
        Ok(())
    }

    /// What a store's epoch deadline is set to, in ticks from now.
    #[inline]
    pub fn ticks_per_slice(&self) -> u64 {
        u64::from(!self.every_check)
    }
}
