//! BOP's side: compiled modules, and stores whose fibers take turns.

use crate::ours::{Fiber, Runtime, ok};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use wasmtime::ValRaw;

/// A function of the host: its name, and how many i32 it takes and returns.
pub type Import = (&'static str, usize, usize, bop::wasmtime_func_unchecked_callback_t);

/// A compiled module, linked with functions of module `host`, and with module `bop`.
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
        Guest::with(rt, text, ("yield", 0, 0, gives_way))
    }

    /// With one import of another type; `mark` is always there.
    pub fn with(rt: &Runtime, text: &str, import: Import) -> Guest {
        let mut linker = bop::wasmtime_linker_new(rt.engine());
        let mut wasm = bop::wasm_byte_vec_t::default();
        let (mut module, mut pre) = (null_mut(), null_mut());
        let imports: [Import; 2] = [import, ("mark", 1, 0, mark)];
        // SAFETY: every pointer and length belongs to a live slice; the module is ours to free.
        unsafe {
            ok(bop::bop_linker_define(&mut *linker));
            for (name, params, results, call) in imports {
                let ty = bop::wasm_functype_new(&mut i32s(params), &mut i32s(results));
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
            Store { store: out, instance, func, options: null_mut() }
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
    instance: wasmtime::Instance,
    func: wasmtime::Func,
    options: *mut bop::bop_spawn_options_t,
}

// SAFETY: `bop_spawn` may be called from any thread, and only reads the options.
unsafe impl Sync for Store {}

impl Store {
    /// Lets each fiber to come have a stack of its own in the instance's memory: of the usual size, or of
    /// so many bytes with a page of a guard.
    pub fn share(self, stack: Option<u32>) -> Store {
        // SAFETY: the options are fresh, and the instance is the store's.
        unsafe {
            let options = bop::bop_share_options_new();
            if let Some(bytes) = stack {
                bop::bop_share_options_stack_size(options, bytes);
                bop::bop_share_options_guard_size(options, 4096);
            }
            ok(bop::bop_store_share(self.store, &self.instance, options));
            bop::bop_share_options_delete(options);
        }
        self
    }

    /// Lets each fiber to come have a native stack of so many bytes.
    pub fn native_stacks(mut self, bytes: usize) -> Store {
        // SAFETY: the options are the store's own; there were none.
        unsafe {
            self.options = bop::bop_spawn_options_new();
            bop::bop_spawn_options_stack_size(self.options, bytes);
        }
        self
    }

    pub fn spawn(&self, args: &[i32]) -> Fiber {
        // Two at most: a spawn shall not pay for a list on the heap.
        let mut vals = [i32_val(0), i32_val(0)];
        for (val, &arg) in vals[..args.len()].iter_mut().zip(args) {
            *val = i32_val(arg);
        }
        let mut out = null_mut();
        // SAFETY: every pointer is live; the arguments are copied.
        ok(unsafe {
            bop::bop_spawn(
                self.store,
                &self.func,
                vals.as_ptr(),
                args.len(),
                self.options,
                &mut out,
            )
        });
        Fiber(out)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the last use of both.
        unsafe {
            bop::bop_store_delete(self.store);
            bop::bop_spawn_options_delete(self.options);
        }
    }
}

pub fn i32_val(value: i32) -> bop::wasmtime_val_t {
    bop::wasmtime_val_t { kind: bop::WASMTIME_I32, of: bop::wasmtime_val_union { i32: value } }
}

fn i32s(n: usize) -> bop::wasm_valtype_vec_t {
    let types: Vec<_> = (0..n).map(|_| Some(bop::wasm_valtype_new(bop::WASM_I32))).collect();
    types.into()
}
