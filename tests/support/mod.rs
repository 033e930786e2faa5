//! Owned handles over the C functions, for the tests that drive BOP from Rust.
//!
//! Only what C can reach is called here; what these types add is `Drop` and readable failures.
#![allow(dead_code, missing_docs)] // each test takes its part

pub mod guest;
pub mod stock_fails;
pub mod stress;
pub mod wast;
pub mod world;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

/// Both faces of an error: Wasmtime's functions return a box, BOP's a pointer.
pub trait CError {
    fn text(self) -> Option<String>;
}

impl CError for Option<Box<bop::wasmtime_error_t>> {
    fn text(self) -> Option<String> {
        self.map(|e| {
            let mut name = bop::wasm_name_t::default();
            bop::wasmtime_error_message(&e, &mut name);
            String::from_utf8_lossy(name.as_slice()).into_owned()
        })
    }
}

impl CError for *mut bop::wasmtime_error_t {
    fn text(self) -> Option<String> {
        // SAFETY: an error that BOP hands out is owned by the caller, and came from a box.
        (!self.is_null())
            .then(|| unsafe { Box::from_raw(self) })
            .text()
    }
}

/// Panics with the error's message, if there is one.
#[track_caller]
pub fn ok(error: impl CError) {
    if let Some(text) = error.text() {
        panic!("{text}");
    }
}

/// A started runtime; deleting it must end all its fibers.
pub struct Runtime(pub *mut bop::bop_runtime_t);

// SAFETY: a `bop_runtime_t` may be used from any thread.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// `quantum_ns` 0 means "yield at every epoch check". `wasm` may be null: Wasmtime's defaults.
    pub fn start(
        workers: usize,
        quantum_ns: u64,
        stack: usize,
        wasm: *mut bop::wasm_config_t,
    ) -> Self {
        let mut out = ptr::null_mut();
        // SAFETY: the config is fresh, `bop_runtime_new` takes it, and it takes `wasm` with it.
        unsafe {
            let config = bop::bop_config_new();
            if !wasm.is_null() {
                bop::bop_config_wasm(config, wasm);
            }
            bop::bop_config_workers(config, workers);
            bop::bop_config_quantum(config, quantum_ns);
            bop::bop_config_stack_size(config, stack);
            ok(bop::bop_runtime_new(config, &mut out));
            ok(bop::bop_runtime_start(out));
        }
        Runtime(out)
    }

    pub fn engine(&self) -> &bop::wasm_engine_t {
        // SAFETY: the engine lives as long as the runtime.
        unsafe { &*bop::bop_runtime_engine(self.0) }
    }

    pub fn stats(&self) -> bop::bop_stats_t {
        // SAFETY: a struct of plain integers, for which zero is a value.
        let mut stats: bop::bop_stats_t = unsafe { std::mem::zeroed() };
        stats.size = size_of::<bop::bop_stats_t>();
        // SAFETY: `stats` is as large as it says.
        unsafe { bop::bop_runtime_stats(self.0, &mut stats) };
        stats
    }

    /// Runs a closure on a fiber of its own. A panic is printed, and `join_value` then fails.
    pub fn spawn_host(
        &self,
        name: &str,
        stack: usize,
        run: impl FnOnce() -> i64 + Send + 'static,
    ) -> Fiber {
        type Job = Option<Box<dyn FnOnce() -> i64 + Send>>;
        extern "C" fn call(env: *mut c_void) -> i64 {
            // SAFETY: `env` is the job boxed below; this is its only call.
            let job = unsafe { &mut *env.cast::<Job>() };
            let run = job.take().expect("a host fiber runs once");
            catch_unwind(AssertUnwindSafe(run)).unwrap_or(i64::MIN)
        }
        extern "C" fn drop_job(env: *mut c_void) {
            // SAFETY: the finalizer runs exactly once, after the last use of `env`.
            drop(unsafe { Box::from_raw(env.cast::<Job>()) });
        }
        let job: Box<Job> = Box::new(Some(Box::new(run)));
        let mut out = ptr::null_mut();
        let options = Options::new(name, stack);
        // SAFETY: every pointer is live, and `job` is owned by the fiber from here.
        ok(unsafe {
            bop::bop_spawn_host(
                self.0,
                Some(call),
                Box::into_raw(job).cast(),
                Some(drop_job),
                options.0,
                &mut out,
            )
        });
        Fiber(out)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // SAFETY: the last use.
        let left = unsafe { bop::bop_runtime_delete(self.0) }.text();
        if let Some(left) = left {
            assert!(std::thread::panicking(), "bop_runtime_delete: {left}");
        }
    }
}

/// Spawn options: a name, and a stack size if it isn't 0.
pub struct Options(pub *mut bop::bop_spawn_options_t);

impl Options {
    pub fn new(name: &str, stack: usize) -> Self {
        // SAFETY: the builder is fresh; the name is copied.
        unsafe {
            let options = bop::bop_spawn_options_new();
            bop::bop_spawn_options_name(options, name.as_ptr().cast(), name.len());
            if stack != 0 {
                bop::bop_spawn_options_stack_size(options, stack);
            }
            Options(options)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { bop::bop_spawn_options_delete(self.0) };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Returned,
    Trapped,
    Cancelled,
    Exited,
    Failed,
}

/// What a trap says: its message, its code, and the function names from the youngest frame out.
#[derive(Clone, Debug, Default)]
pub struct Trap {
    pub message: String,
    pub code: Option<u8>,
    pub frames: Vec<String>,
}

impl Trap {
    pub fn read(trap: &bop::wasm_trap_t) -> Trap {
        let mut message = bop::wasm_name_t::default();
        bop::wasm_trap_message(trap, &mut message);
        let mut code = 0;
        let has_code = bop::wasmtime_trap_code(trap, &mut code);
        let mut frames = bop::wasm_frame_vec_t::default();
        bop::wasm_trap_trace(trap, &mut frames);
        let name = |frame: &bop::wasm_frame_t<'_>| match bop::wasmtime_frame_func_name(frame) {
            Some(name) => String::from_utf8_lossy(name.as_slice()).into_owned(),
            None => "?".into(),
        };
        Trap {
            message: String::from_utf8_lossy(message.as_slice())
                .trim_end_matches('\0')
                .into(),
            code: has_code.then_some(code),
            frames: frames
                .as_slice()
                .iter()
                .flatten()
                .map(|frame| name(frame))
                .collect(),
        }
    }
}

/// A handle on a fiber; dropping it detaches the fiber.
pub struct Fiber(pub *mut bop::bop_fiber_t);

// SAFETY: a `bop_fiber_t` is a counted handle that any thread may use.
unsafe impl Send for Fiber {}
// SAFETY: as above.
unsafe impl Sync for Fiber {}

impl Fiber {
    /// The running fiber.
    pub fn current() -> Fiber {
        Fiber(bop::bop_current())
    }

    /// Waits, and gives the outcome, or the status when that is not `BOP_OK`.
    pub fn join_within(&self, limit: Duration) -> Result<Outcome, i32> {
        let mut out = std::mem::MaybeUninit::uninit();
        // SAFETY: the handle is live and `out` is written when the status is `BOP_OK`.
        unsafe {
            let deadline = bop::bop_now() + limit.as_nanos() as u64;
            match bop::bop_fiber_join_until(self.0, deadline, out.as_mut_ptr()) as i32 {
                0 => Ok(outcome(out.assume_init() as i32)),
                status => Err(status),
            }
        }
    }

    /// Waits for a host fiber and returns its value; anything else is a failure.
    #[track_caller]
    pub fn join_value(&self, limit: Duration) -> i64 {
        match self.join_within(limit) {
            Ok(Outcome::Returned) => {}
            other => panic!(
                "fiber {} ended with {other:?}: {:?}",
                self.name(),
                self.take_trap()
            ),
        }
        let value = self.result_i64();
        assert_ne!(value, i64::MIN, "fiber {} panicked", self.name());
        value
    }

    /// The one result of a fiber that returned, as an i64.
    pub fn result_i64(&self) -> i64 {
        let mut value = i32_val(0);
        // SAFETY: one live value.
        ok(unsafe { bop::bop_fiber_results(self.0, &mut value, 1) });
        match value.kind {
            // SAFETY: the kind says which field is set.
            bop::WASMTIME_I32 => i64::from(unsafe { value.of.i32 }),
            // SAFETY: as above.
            bop::WASMTIME_I64 => unsafe { value.of.i64 },
            kind => panic!("a result of kind {kind}"),
        }
    }

    pub fn take_trap(&self) -> Option<Trap> {
        // SAFETY: the handle is live; the trap is owned, and came from a box.
        let trap = unsafe { bop::bop_fiber_take_trap(self.0) };
        // SAFETY: as above.
        let trap = (!trap.is_null()).then(|| unsafe { Box::from_raw(trap) })?;
        Some(Trap::read(&trap))
    }

    /// 0 (`BOP_OK`) or 3 (`BOP_FINISHED`).
    pub fn cancel(&self) -> i32 {
        // SAFETY: the handle is live.
        unsafe { bop::bop_fiber_cancel(self.0) as i32 }
    }

    pub fn unpark(&self) -> i32 {
        // SAFETY: the handle is live.
        unsafe { bop::bop_unpark(self.0) as i32 }
    }

    pub fn finished(&self) -> bool {
        // SAFETY: the handle is live.
        unsafe { bop::bop_fiber_state(self.0) as i32 == 3 }
    }

    pub fn name(&self) -> String {
        let mut text = [0_u8; 64];
        // SAFETY: the buffer is as long as it says.
        let len = unsafe { bop::bop_fiber_name(self.0, text.as_mut_ptr().cast(), text.len()) };
        String::from_utf8_lossy(&text[..len.min(text.len() - 1)]).into_owned()
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // SAFETY: the last use of this handle.
        unsafe { bop::bop_fiber_detach(self.0) };
    }
}

fn outcome(code: i32) -> Outcome {
    match code {
        0 => Outcome::Returned,
        1 => Outcome::Trapped,
        2 => Outcome::Cancelled,
        3 => Outcome::Exited,
        4 => Outcome::Failed,
        other => panic!("unknown outcome {other}"),
    }
}

pub fn i32_val(value: i32) -> bop::wasmtime_val_t {
    bop::wasmtime_val_t {
        kind: bop::WASMTIME_I32,
        of: bop::wasmtime_val_union { i32: value },
    }
}

/// What a fiber calls, with the status as a number: 0 is `BOP_OK`, 2 `BOP_CANCELLED`.
pub mod fiber {
    pub fn yield_now() -> i32 {
        bop::bop_yield() as i32
    }

    pub fn sleep(time: std::time::Duration) -> i32 {
        bop::bop_sleep(time.as_nanos() as u64) as i32
    }

    pub fn park() -> i32 {
        bop::bop_park() as i32
    }

    pub fn cancelled() -> bool {
        bop::bop_cancelled()
    }
}

/// The thread that runs the caller, asked of the kernel: nothing to cache across a switch.
#[inline(never)]
pub fn thread_id() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// xorshift64*, enough to shuffle a test and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // Spread near seeds apart; xorshift never leaves 0, so don't start there.
        Rng(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }
}
