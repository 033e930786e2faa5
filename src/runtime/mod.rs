//! Runtimes: set-up, life, spawning, waiting, statistics.

pub mod blocking;
pub mod fd;
pub mod guest;
mod life;
pub mod share;
pub mod spawn;
pub mod sync;
pub mod wait;
pub mod wasi;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use wasmtime::{Config as WasmConfig, Engine};

use crate::fiber::stack::{Pool, guard_fits_pages};
use crate::sched::Scheduler;
use crate::sched::helpers::Helpers;
use crate::sys::memory::{Guard, has_guard_install};
use crate::sys::fault::Fault;
use crate::sys::{barrier, fault, tls, tripwire};
use crate::wasm::live::Live;
use crate::wasm::shared::{Limits, Shared};
use crate::wasm::{bridge, fiber, locate, shadow};
use life::Life;

/// The shortest quantum, in nanoseconds.
pub const MIN_QUANTUM: u64 = 50_000;
/// Workers that a runtime may have in the background.
const MAX_WORKERS: usize = 1024;
/// Threads that may be in `bop_run` as workers beside those; more of them just wait.
const MORE_WORKERS: usize = 16;
/// The largest stack that may be asked for.
const MAX_STACK: usize = 1 << 40;
/// Wasmtime's own default for `max_wasm_stack`; no more than this for Wasm that runs elsewhere than
/// on a stack that BOP knows.
const PLAIN_WASM_STACK: usize = 512 * 1024;
/// How often an idle ticker looks up while "yield at every check" makes a quantum unnecessary.
const CHECK_QUANTUM: u64 = 1_000_000;

/// How the guards of stacks are to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardChoice {
    /// The best that the kernel has.
    Best,
    /// This one or none.
    This(Guard),
    /// A number that means nothing.
    Unknown(u32),
}

/// What a runtime is made from.
pub struct Config {
    /// Wasmtime's own options; `None` for its defaults.
    pub wasm: Option<WasmConfig>,
    pub workers: usize,
    /// In nanoseconds; 0: switch at every epoch check.
    pub quantum: u64,
    pub stack_size: usize,
    pub host_stack: usize,
    pub max_fibers: usize,
    /// How long `bop_runtime_delete` waits for fibers, in nanoseconds.
    pub shutdown_timeout: u64,
    pub guard: GuardChoice,
    pub timing: bool,
    /// Threads that make blocking calls, at the most.
    pub helpers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            wasm: None,
            workers: std::thread::available_parallelism().map_or(1, |n| n.get()),
            quantum: 1_000_000,
            stack_size: 1 << 20,
            host_stack: 64 << 10,
            max_fibers: usize::MAX,
            shutdown_timeout: 5_000_000_000,
            guard: GuardChoice::Best,
            timing: false,
            helpers: 512,
        }
    }
}

/// One engine, its workers, timers, fibers.
pub struct Runtime {
    pub shared: Arc<Shared>,
    workers: usize,
    shutdown_timeout: u64,
    life: Mutex<Life>,
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            stack_size: self.stack_size,
            host_stack: self.host_stack,
            max_fibers: self.max_fibers,
            every_check: self.quantum == 0,
            timing: self.timing,
        }
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return Err(format!("{} workers: there may be 1 to {MAX_WORKERS}", self.workers));
        }
        if self.helpers == 0 {
            return Err("no helper thread may be there for blocking calls: at least 1".into());
        }
        if self.quantum != 0 && self.quantum < MIN_QUANTUM {
            return Err(format!(
                "a quantum of {} ns is too short: at least {MIN_QUANTUM}, or 0 for a yield at every \
                 epoch check",
                self.quantum
            ));
        }
        if self.stack_size > MAX_STACK {
            return Err(format!("a stack of {} bytes is too large", self.stack_size));
        }
        self.limits().check_stack(self.stack_size)?;
        if let GuardChoice::Unknown(number) = self.guard {
            return Err(format!("there is no kind of guard with the number {number}"));
        }
        if self.guard == GuardChoice::This(Guard::Install) && !has_guard_install() {
            return Err("this kernel has no guard regions (MADV_GUARD_INSTALL, Linux 6.13)".into());
        }
        if !guard_fits_pages() {
            return Err("this system's pages are too large for the guards of stacks".into());
        }
        Ok(())
    }

    fn guard(&self) -> Guard {
        match self.guard {
            GuardChoice::This(guard) => guard,
            _ if has_guard_install() => Guard::Install,
            _ => Guard::Mprotect,
        }
    }

    fn engine(&mut self) -> Result<Engine, String> {
        let mut wasm = self.wasm.take().unwrap_or_else(|| {
            let mut wasm = WasmConfig::default();
            wasm.max_wasm_stack(PLAIN_WASM_STACK.min(self.stack_size - self.host_stack));
            wasm
        });
        wasm.epoch_interruption(true);
        Engine::new(&wasm).map_err(|e| format!("{e:#}"))
    }
}

impl Runtime {
    /// Makes a runtime. It has no threads yet.
    pub fn new(mut config: Config) -> Result<Runtime, String> {
        config.check()?;
        let engine = config.engine()?;
        locate::locate()?;
        barrier::register();
        // After the first engine: its handler must be the one behind ours.
        fault::install(describe_fault);
        let quantum = if config.quantum == 0 { CHECK_QUANTUM } else { config.quantum };
        let scheduler = Scheduler::new(config.workers + MORE_WORKERS, quantum);
        let shared = Shared {
            scheduler: scheduler.map_err(|e| format!("no descriptor for the poller: {e}"))?,
            c_engine: bridge::engine(engine.clone()),
            engine,
            pool: Pool::new(config.guard()),
            live: Live::new(config.max_fibers, config.workers + MORE_WORKERS),
            last_id: AtomicU64::new(0),
            background: AtomicBool::new(false),
            lent: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            inside: Mutex::default(),
            helpers: Helpers::new(config.helpers),
            limits: config.limits(),
            probe: OnceLock::new(),
        };
        Ok(Runtime {
            shared: Arc::new(shared),
            workers: config.workers,
            shutdown_timeout: config.shutdown_timeout,
            life: Mutex::default(),
        })
    }

    /// Background workers that it has when it runs.
    pub fn workers(&self) -> usize {
        self.workers
    }
}

/// Is the calling thread a fiber, or a worker between two fibers? Then it must not block.
pub fn on_worker() -> bool {
    !tls::worker().is_null()
}

/// Opens a guard in a guest's memory, and names the fiber whose own guard was hit. Runs in a signal
/// handler: no allocation, no lock.
fn describe_fault(address: usize, write: &mut dyn FnMut(&[u8])) -> Fault {
    if tripwire::open(address) {
        shadow::overrun(address);
        return Fault::Resolved;
    }
    let Some(fiber) = fiber::current() else { return Fault::Unknown };
    if !(fiber.guard.0..fiber.guard.1).contains(&address) {
        return Fault::Unknown;
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut id = fiber.id;
    loop {
        at -= 1;
        digits[at] = b'0' + (id % 10) as u8;
        id /= 10;
        if id == 0 {
            break;
        }
    }
    write(b"bop: stack overflow: a host function overran the stack of fiber ");
    write(&digits[at..]);
    if !fiber.name.is_empty() {
        write(b" \"");
        write(fiber.name.as_bytes());
        write(b"\"");
    }
    write(b"; see bop_config_host_stack\n");
    Fault::Fatal
}
