//! BOP's side: owned handles over the C functions, so that what is measured is what C calls.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use wasmtime::ValRaw;

/// More than any benchmark has alive at once.
const MAX_FIBERS: usize = 20_000;

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
fn ok(error: impl CError) {
    if let Some(text) = error.text() {
        panic!("{text}");
    }
}

/// A runtime; deleted with what is left of its fibers.
pub struct Runtime(*mut bop::bop_runtime_t);

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

    fn engine(&self) -> &bop::wasm_engine_t {
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
pub struct Fiber(*mut bop::bop_fiber_t);

impl Fiber {
    /// Waits for the fiber's end, which must be a return.
    pub fn join(self) {
        let mut outcome = MaybeUninit::uninit();
        // SAFETY: the handle is live, and the outcome is written when the status is BOP_OK.
        unsafe {
            let status = bop::bop_fiber_join(self.0, outcome.as_mut_ptr()) as i32;
            assert_eq!(status, 0, "bop_fiber_join");
            assert_eq!(outcome.assume_init() as i32, 0, "a fiber did not return");
        }
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

/// A compiled module, linked with `yield` and `mark` of module `host`.
pub struct Guest(*mut bop::wasmtime_instance_pre_t);

// SAFETY: `bop_spawn_instance` may be called from any thread, and only reads it.
unsafe impl Sync for Guest {}

/// The import `mark`.
extern "C" fn mark(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    args: *mut ValRaw,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: the function's type has one parameter, an i32.
    crate::measure::MARKS.hit(unsafe { (*args).get_i32() });
    None
}

impl Guest {
    /// `gives_way` is the import `yield`, of the cheapest kind that the C API has.
    pub fn new(
        rt: &Runtime,
        text: &str,
        gives_way: bop::wasmtime_func_unchecked_callback_t,
    ) -> Guest {
        let mut linker = bop::wasmtime_linker_new(rt.engine());
        let mut wasm = bop::wasm_byte_vec_t::default();
        let (mut module, mut pre) = (null_mut(), null_mut());
        let imports: [(&str, usize, bop::wasmtime_func_unchecked_callback_t); 2] =
            [("yield", 0, gives_way), ("mark", 1, mark)];
        // SAFETY: every pointer and length belongs to a live slice; the module is ours to free.
        unsafe {
            for (name, params, call) in imports {
                let ty = bop::wasm_functype_new(&mut i32s(params), &mut i32s(0));
                ok(bop::wasmtime_linker_define_func_unchecked(
                    &mut linker,
                    b"host".as_ptr(),
                    4,
                    name.as_ptr(),
                    name.len(),
                    &ty,
                    call,
                    null_mut(),
                    None,
                ));
            }
            ok(bop::wasmtime_wat2wasm(text.as_ptr(), text.len(), &mut wasm));
            let bytes = wasm.as_slice();
            ok(bop::wasmtime_module_new(
                rt.engine(),
                bytes.as_ptr().cast(),
                bytes.len(),
                &mut module,
            ));
            ok(bop::wasmtime_linker_instantiate_pre(&linker, &*module, &mut pre));
            drop(Box::from_raw(module));
        }
        Guest(pre)
    }

    /// A fiber in a fresh store and instance of its own.
    pub fn spawn(&self, rt: &Runtime, export: &str) -> Fiber {
        let mut out = null_mut();
        // SAFETY: every pointer and length belongs to something live; no arguments, no set-up.
        ok(unsafe {
            bop::bop_spawn_instance(
                rt.0,
                self.0,
                export.as_ptr().cast(),
                export.len(),
                null_mut(),
                0,
                None,
                null_mut(),
                None,
                null_mut(),
                &mut out,
            )
        });
        Fiber(out)
    }

    /// A store with one instance, for any number of fibers that run one export.
    pub fn store(&self, rt: &Runtime, export: &str) -> Store {
        let mut store = bop::wasmtime_store_new(rt.engine(), null_mut(), None);
        let mut instance = MaybeUninit::<wasmtime::Instance>::uninit();
        let (mut trap, mut out) = (null_mut(), null_mut());
        // SAFETY: the instance is written when there is neither error nor trap, and only used
        // then; `bop_store_new` takes the store.
        unsafe {
            let context = bop::wasmtime_store_context(&mut store);
            ok(bop::wasmtime_instance_pre_instantiate(
                &*self.0,
                context,
                &mut *instance.as_mut_ptr(),
                &mut trap,
            ));
            assert!(trap.is_null(), "instantiation trapped");
            let instance = instance.assume_init();
            let mut context = bop::wasmtime_store_context(&mut store);
            let func = instance.get_func(&mut context, export).expect("no such export");
            ok(bop::bop_store_new(rt.0, Box::into_raw(store), &mut out));
            Store { store: out, func }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: owned, last use.
        unsafe { bop::wasmtime_instance_pre_delete(Box::from_raw(self.0)) };
    }
}

/// See [`Guest::store`].
pub struct Store {
    store: *mut bop::bop_store_t,
    func: wasmtime::Func,
}

// SAFETY: `bop_spawn` may be called from any thread.
unsafe impl Sync for Store {}

impl Store {
    pub fn spawn(&self, args: &[i32]) -> Fiber {
        // Two at most: a spawn shall not pay for a list on the heap.
        let mut vals = [i32_val(0), i32_val(0)];
        for (val, &arg) in vals[..args.len()].iter_mut().zip(args) {
            *val = i32_val(arg);
        }
        let mut out = null_mut();
        // SAFETY: every pointer is live; the arguments are copied.
        ok(unsafe {
            bop::bop_spawn(self.store, &self.func, vals.as_ptr(), args.len(), null_mut(), &mut out)
        });
        Fiber(out)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the last use of the handle.
        unsafe { bop::bop_store_delete(self.store) };
    }
}

fn i32_val(value: i32) -> bop::wasmtime_val_t {
    bop::wasmtime_val_t { kind: bop::WASMTIME_I32, of: bop::wasmtime_val_union { i32: value } }
}

fn i32s(n: usize) -> bop::wasm_valtype_vec_t {
    let types: Vec<_> = (0..n).map(|_| Some(bop::wasm_valtype_new(bop::WASM_I32))).collect();
    types.into()
}
