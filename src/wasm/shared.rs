//! What the fibers of a runtime share. It lives as long as any of them, or any handle.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use wasmtime::{Engine, Module};
use wasmtime_c_api::wasm_engine_t;

use super::fiber::Fiber;
use super::live::Live;
use super::strand::Strand;
use crate::fiber::stack::Pool;
use crate::sched::Scheduler;

/// See the head of this file.
pub struct Shared {
    pub scheduler: Scheduler<Strand>,
    pub engine: Engine,
    /// The same engine, as C takes it.
    pub c_engine: Box<wasm_engine_t>,
    pub pool: Pool,
    pub live: Live,
    /// The last id that was given to a fiber.
    pub last_id: AtomicU64,
    /// Fibers that got an id and were refused after all.
    pub refused: AtomicU64,
    /// Background workers run, or are on their way.
    pub background: AtomicBool,
    /// Threads that are workers in `bop_run`, or want to be.
    pub lent: AtomicUsize,
    /// Background workers must end.
    pub stop: AtomicBool,
    /// The host threads that have entered a store; one that has entered two is there twice.
    pub inside: Mutex<Vec<u64>>,
    pub limits: Limits,
    /// See `shadow`; compiled when first needed.
    pub probe: OnceLock<Result<Module, String>>,
}

impl Shared {
    /// See `inside`.
    pub fn threads_inside(&self) -> MutexGuard<'_, Vec<u64>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is left of a fiber but handles.
    pub fn unlist(&self, fiber: &Fiber) {
        if self.live.unlist(fiber) {
            // Those that run until no fiber is left.
            self.scheduler.wake_all();
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
