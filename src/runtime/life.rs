//! The life of a runtime: start, run, shut down.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use wasmtime::Engine;

use super::{MORE_WORKERS, Runtime, on_worker};
use crate::sys::clock;
use crate::wasm::doors::this_thread;
use crate::wasm::shared::Shared;

/// How often a thread for which there was no place as a worker looks for one, in nanoseconds.
const LOOK: u64 = 10_000_000;
/// How many names of fibers an error lists.
const NAMES: usize = 8;

#[derive(Default)]
pub(super) struct Life {
    phase: Phase,
    ticker: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    /// Background workers run.
    Started,
    /// No fiber may come in; those that live are cancelled.
    Closing,
    /// No fiber lives, no thread runs.
    Closed,
}

impl Life {
    fn ticker(&mut self, shared: &Arc<Shared>) -> Result<(), String> {
        if self.ticker.is_none() {
            let shared = Arc::clone(shared);
            let run = move || {
                let (tick, idle) = (|| shared.engine.increment_epoch(), || shared.pool.trim());
                shared.scheduler.run_ticker(tick, idle);
            };
            self.ticker = Some(thread("bop-ticker".into(), run)?);
        }
        Ok(())
    }

    fn workers(&mut self, shared: &Arc<Shared>, count: usize) -> Result<(), String> {
        self.ticker(shared)?;
        shared.background.store(true, Ordering::Release);
        while self.workers.len() < count {
            let shared = Arc::clone(shared);
            let run = move || {
                Engine::tls_eager_initialize();
                shared.scheduler.run(|| !shared.stop.load(Ordering::Acquire));
            };
            let name = format!("bop-worker-{}", self.workers.len());
            self.workers.push(thread(name, run)?);
        }
        Ok(())
    }

    fn stop(&mut self, shared: &Shared) {
        shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            shared.scheduler.wake_all();
            // A worker's thread does not panic: what it runs catches panics.
            let _ = worker.join();
        }
        shared.background.store(false, Ordering::Release);
        // Handles of fibers may keep the pool for long.
        shared.pool.trim();
        shared.scheduler.ticker().stop();
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}

fn thread(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    let thread = std::thread::Builder::new().name(name).spawn(run);
    thread.map_err(|e| format!("a thread can't be started: {e}"))
}

impl Runtime {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the background workers.
    pub fn start(&self) -> Result<(), String> {
        let mut life = self.life();
        match life.phase {
            Phase::New => {}
            Phase::Started => return Err("the runtime was started before".into()),
            Phase::Closing | Phase::Closed => return Err("the runtime is shut down".into()),
        }
        life.workers(&self.shared, self.workers)?;
        life.phase = Phase::Started;
        Ok(())
    }

    /// May the calling thread wait for fibers to end?
    fn may_wait(&self) -> Result<(), String> {
        if on_worker() {
            return Err("called from a fiber: it would wait for itself".into());
        }
        if self.shared.threads_inside().contains(&this_thread()) {
            return Err("this thread has entered a store, whose fibers can't end before it exits".into());
        }
        Ok(())
    }

    /// Makes the calling thread a worker until no fiber is left.
    pub fn run(&self) -> Result<(), String> {
        self.may_wait()?;
        let shared = Arc::clone(&self.shared);
        {
            let mut life = self.life();
            if matches!(life.phase, Phase::Closing | Phase::Closed) {
                return Err("the runtime is shut down".into());
            }
            life.ticker(&shared)?;
        }
        Engine::tls_eager_initialize();
        let interest = shared.live.interest();
        loop {
            // The other places are those of the background workers.
            let lent = shared.lent.fetch_add(1, Ordering::Relaxed);
            let ran = lent < MORE_WORKERS && shared.scheduler.run(|| !shared.live.is_empty()).is_some();
            shared.lent.fetch_sub(1, Ordering::Relaxed);
            // There are enough workers already, but they may be leaving.
            if ran || interest.wait(Some(clock::now() + LOOK)) {
                return Ok(());
            }
        }
    }

    /// Makes the calling thread a worker until there is nothing to do, `budget` nanoseconds at the most. When it should
    /// come back, as far as can be told.
    pub fn run_for(&self, budget: u64) -> Result<Option<u64>, String> {
        if on_worker() {
            return Err("called from a fiber".into());
        }
        let shared = &self.shared;
        {
            let mut life = self.life();
            if life.phase == Phase::Closed {
                return Err("the runtime is shut down".into());
            }
            life.ticker(shared)?;
        }
        Engine::tls_eager_initialize();
        let until = clock::now().saturating_add(budget);
        // The other places are those of the background workers.
        let lent = shared.lent.fetch_add(1, Ordering::Relaxed);
        let ran = if lent < MORE_WORKERS { shared.scheduler.run_for(until.min(u64::MAX - 1)) } else { None };
        shared.lent.fetch_sub(1, Ordering::Relaxed);
        ran.ok_or("there are as many workers as there may be")?;
        Ok(shared.scheduler.next())
    }

    /// Cancels all fibers and waits for their end, and for that of blocking calls, at most `timeout` nanoseconds; then
    /// stops all threads. The error names what did not end; then it may be called again.
    pub fn shut_down(&self, timeout: u64) -> Result<(), String> {
        self.may_wait()?;
        let deadline = clock::now().saturating_add(timeout);
        let mut life = self.life();
        if life.phase == Phase::Closed {
            return Ok(());
        }
        life.phase = Phase::Closing;
        let shared = &self.shared;
        for fiber in shared.live.all(true) {
            fiber.cancel();
        }
        if !shared.live.is_empty() {
            // Somebody must run them to their end.
            let workers = life.workers.len().max(1);
            life.workers(shared, workers)?;
        }
        // A fiber on its way to its end may ask for the lock.
        drop(life);
        // Told of a moment without fibers is not enough: no more can come in, so wait for none.
        while !shared.live.is_empty() {
            if !shared.live.interest().wait(Some(deadline)) {
                return Err(self.complaint());
            }
        }
        if !shared.helpers.close(deadline) {
            let (calls, _) = shared.helpers.counts();
            return Err(format!("{calls} blocking calls did not return in time"));
        }
        let mut life = self.life();
        if life.phase == Phase::Closing {
            life.stop(shared);
            life.phase = Phase::Closed;
        }
        Ok(())
    }

    /// As `shut_down`, with the time that the configuration gives.
    pub fn shut_down_to_delete(&self) -> Result<(), String> {
        self.shut_down(self.shutdown_timeout)
    }

    fn complaint(&self) -> String {
        let left = self.shared.live.all(true);
        let names: Vec<_> = left.iter().take(NAMES).map(|fiber| fiber.label()).collect();
        let more = if left.len() > NAMES { ", ..." } else { "" };
        format!("{} fibers did not end in time: {}{more}", left.len(), names.join(", "))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Deleted without a successful shutdown (`Runtime::new` failed later on, or a test): the
        // threads hold `shared` and must not go on for ever.
        let shared = Arc::clone(&self.shared);
        self.life().stop(&shared);
    }
}
