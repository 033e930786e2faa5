//! BOP's side: owned handles over the C functions, so that what is measured is what C calls. (`guests`:
//! modules and stores.)

use crate::guests::i32_val;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// More than any benchmark has alive at once.
const MAX_FIBERS: usize = 200_000;

/// Both faces of an error: Wasmtime's functions return a box, BOP's a pointer.
pub trait CError {
    fn text(self) -> Option<String>;
}

impl CError for Option<Box<bop::wasmtime_error_t>> {
    fn text(self) -> Option<String> {
        self.map(|error| {
            let mut message = bop::wasm_name_t::default();
            bop::wasmtime_error_message(&error, &mut message);
            String::from_utf8_lossy(message.as_slice()).into_owned()
        })
    }
}

impl CError for *mut bop::wasmtime_error_t {
    fn text(self) -> Option<String> {
        // SAFETY: an error that BOP returns is the caller's, and was a box.
        let error = (!self.is_null()).then(|| unsafe { Box::from_raw(self) });
        error.text()
    }
}

#[track_caller]
pub fn ok(error: impl CError) {
    if let Some(text) = error.text() {
        panic!("{text}");
    }
}

/// A runtime; deleted with what is left of its fibers.
pub struct Runtime(pub *mut bop::bop_runtime_t);

// SAFETY: a `bop_runtime_t` may be used from any thread, and by several at once.
unsafe impl Sync for Runtime {}

impl Runtime {
    /// A runtime with everything else as it is by default. It is not started.
    pub fn new(workers: usize, quantum_ns: Option<u64>) -> Runtime {
        let mut out = null_mut();
        // SAFETY: the config is fresh, and `bop_runtime_new` takes it.
        unsafe {
            let config = bop::bop_config_new();
            bop::bop_config_workers(config, workers);
            bop::bop_config_max_fibers(config, MAX_FIBERS);
            if let Some(quantum) = quantum_ns {
                bop::bop_config_quantum(config, quantum);
            }
            ok(bop::bop_runtime_new(config, &mut out));
        }
        Runtime(out)
    }

    /// Runs the workers in the background.
    pub fn start(&self) {
        // SAFETY: the handle is live.
        ok(unsafe { bop::bop_runtime_start(self.0) });
    }

    /// Makes this thread, and as many more as asked for, workers until no fiber is left.
    pub fn run(&self, threads: usize) {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.run_here());
            }
            self.run_here();
        });
    }

    fn run_here(&self) {
        // SAFETY: the handle is live.
        ok(unsafe { bop::bop_run(self.0) });
    }

    /// Preemptions so far.
    pub fn preemptions(&self) -> u64 {
        // SAFETY: a struct of plain integers, for which zero is a value.
        let mut stats: bop::bop_stats_t = unsafe { std::mem::zeroed() };
        stats.size = size_of::<bop::bop_stats_t>();
        // SAFETY: `stats` is as large as it says.
        unsafe { bop::bop_runtime_stats(self.0, &mut stats) };
        stats.preemptions
    }

    /// A fiber that runs a C function. `env` must outlive it.
    pub fn spawn_host(&self, call: extern "C" fn(*mut c_void) -> i64, env: *mut c_void) -> Fiber {
        let mut out = null_mut();
        // SAFETY: the handle is live; no finalizer, no options.
        ok(unsafe { bop::bop_spawn_host(self.0, Some(call), env, None, null_mut(), &mut out) });
        Fiber(out)
    }

    /// Runs a closure on a fiber of a started runtime, and waits for it on this thread.
    pub fn inside_fiber<F: FnMut() + Send>(&self, mut work: F) {
        extern "C" fn call<F: FnMut()>(env: *mut c_void) -> i64 {
            // SAFETY: `env` is `work`, whose owner waits for this fiber's end.
            let work = unsafe { &mut *env.cast::<F>() };
            work();
            0
        }
        self.spawn_host(call::<F>, (&raw mut work).cast()).join();
    }

    pub fn engine(&self) -> &bop::wasm_engine_t {
        // SAFETY: the engine lives as long as the runtime.
        unsafe { &*bop::bop_runtime_engine(self.0) }
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

/// A handle on a fiber; dropping it detaches the fiber.
pub struct Fiber(pub *mut bop::bop_fiber_t);

// SAFETY: a `bop_fiber_t` may be used from any thread, and by several at once.
unsafe impl Sync for Fiber {}

impl Fiber {
    /// Waits for the fiber's end, which must be a return.
    pub fn join(self) {
        self.wait();
    }

    /// The same, and the one i32 that it returned.
    pub fn result(self) -> i32 {
        self.wait();
        let mut value = i32_val(0);
        // SAFETY: the handle is live, and there is room for one value, which is an i32.
        unsafe {
            ok(bop::bop_fiber_results(self.0, &mut value, 1));
            value.of.i32
        }
    }

    fn wait(&self) {
        let mut outcome = MaybeUninit::uninit();
        // SAFETY: the handle is live, and the outcome is written when the status is BOP_OK.
        unsafe {
            let status = bop::bop_fiber_join(self.0, outcome.as_mut_ptr()) as i32;
            assert_eq!(status, 0, "bop_fiber_join");
            assert_eq!(outcome.assume_init() as i32, 0, "a fiber did not return");
        }
    }

    pub fn unpark(&self) {
        // SAFETY: the handle is live.
        assert_eq!(unsafe { bop::bop_unpark(self.0) } as i32, 0, "bop_unpark");
    }

    pub fn parked(&self) -> bool {
        // SAFETY: the handle is live. 2 is BOP_STATE_PARKED.
        unsafe { bop::bop_fiber_state(self.0) as i32 == 2 }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { bop::bop_fiber_detach(self.0) };
    }
}
