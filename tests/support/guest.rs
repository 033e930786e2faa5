//! A guest written as text, its host functions, and the two ways to run it: a store per fiber, or one store for many.

use super::{CError, Fiber, Options, Runtime, Trap, i32_val, ok};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

/// A host function: what C gives to `wasmtime_linker_define_func`, with its numbers of i32s in and out.
pub struct Host {
    pub name: &'static str,
    pub params: usize,
    pub results: usize,
    pub call: bop::wasmtime_func_callback_t,
}

/// A compiled module, linked with the host functions of module `host`.
pub struct Guest {
    pre: *mut bop::wasmtime_instance_pre_t,
}

impl Guest {
    /// `env` goes to every host function, and must outlive every store made from the guest.
    pub fn new(engine: &bop::wasm_engine_t, text: &str, hosts: &[Host], env: *mut c_void) -> Guest {
        let mut linker = bop::wasmtime_linker_new(engine);
        let mut wasm = bop::wasm_byte_vec_t::default();
        let (mut module, mut pre) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: every pointer and length belongs to a live slice; the module is ours to free.
        unsafe {
            for host in hosts {
                let ty = bop::wasm_functype_new(&mut i32s(host.params), &mut i32s(host.results));
                ok(bop::wasmtime_linker_define_func(
                    &mut linker,
                    b"host".as_ptr(),
                    4,
                    host.name.as_ptr(),
                    host.name.len(),
                    &ty,
                    host.call,
                    env,
                    None,
                ));
            }
            ok(bop::wasmtime_wat2wasm(text.as_ptr(), text.len(), &mut wasm));
            let bytes = wasm.as_slice();
            ok(bop::wasmtime_module_new(
                engine,
                bytes.as_ptr().cast(),
                bytes.len(),
                &mut module,
            ));
            ok(bop::wasmtime_linker_instantiate_pre(
                &linker, &*module, &mut pre,
            ));
            drop(Box::from_raw(module));
        }
        Guest { pre }
    }

    /// A fiber in a fresh store and instance of its own.
    pub fn spawn(&self, rt: &Runtime, export: &str, args: &[i32], options: &Options) -> Fiber {
        let args: Vec<_> = args.iter().map(|&arg| i32_val(arg)).collect();
        let mut out = ptr::null_mut();
        // SAFETY: every pointer and length belongs to a live slice; the arguments are copied.
        ok(unsafe {
            bop::bop_spawn_instance(
                rt.0,
                self.pre,
                export.as_ptr().cast(),
                export.len(),
                args.as_ptr(),
                args.len(),
                None,
                ptr::null_mut(),
                None,
                options.0,
                &mut out,
            )
        });
        Fiber(out)
    }

    /// A store with one instance, for any number of fibers.
    pub fn store(&self, rt: &Runtime) -> Shared {
        let mut store = bop::wasmtime_store_new(rt.engine(), ptr::null_mut(), None);
        let mut instance = MaybeUninit::<wasmtime::Instance>::uninit();
        let (mut trap, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the instance is written when there is neither error nor trap, and only used then;
        // `bop_store_new` takes the store.
        unsafe {
            let context = bop::wasmtime_store_context(&mut store);
            let error = bop::wasmtime_instance_pre_instantiate(
                &*self.pre,
                context,
                &mut *instance.as_mut_ptr(),
                &mut trap,
            );
            ok(error);
            assert!(trap.is_null(), "instantiation trapped");
            let instance = instance.assume_init();
            let mut context = bop::wasmtime_store_context(&mut store);
            let memory = instance
                .get_memory(&mut context, "memory")
                .map_or(ptr::null_mut(), |m| m.data_ptr(&context));
            let names: Vec<String> = instance
                .exports(&mut context)
                .map(|e| e.name().to_string())
                .collect();
            let funcs = names
                .into_iter()
                .filter_map(|name| Some((instance.get_func(&mut context, &name)?, name)));
            let funcs = funcs.map(|(func, name)| (name, func)).collect();
            ok(bop::bop_store_new(rt.0, Box::into_raw(store), &mut out));
            Shared {
                store: out,
                funcs,
                memory,
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: owned, last use.
        unsafe { bop::wasmtime_instance_pre_delete(Box::from_raw(self.pre)) };
    }
}

/// One store; dropping the handle leaves its fibers to end by themselves.
pub struct Shared {
    store: *mut bop::bop_store_t,
    funcs: Vec<(String, wasmtime::Func)>,
    /// The exported memory's first byte, if there is one. The guests here never grow it.
    pub memory: *mut u8,
}

impl Shared {
    pub fn spawn(&self, export: &str, args: &[i32], options: &Options) -> Fiber {
        let (_, func) = self
            .funcs
            .iter()
            .find(|(name, _)| name == export)
            .expect("no such export");
        let args: Vec<_> = args.iter().map(|&arg| i32_val(arg)).collect();
        let mut out = ptr::null_mut();
        // SAFETY: every pointer is live; the arguments are copied.
        ok(unsafe {
            bop::bop_spawn(
                self.store,
                func,
                args.as_ptr(),
                args.len(),
                options.0,
                &mut out,
            )
        });
        Fiber(out)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the last use of the handle.
        unsafe { bop::bop_store_delete(self.store) };
    }
}

/// Calls back into the guest from a host function. A failure gives what the trap or error says.
///
/// # Safety
/// `caller` is the one that the host function was given.
pub unsafe fn call_back(
    caller: *mut bop::wasmtime_caller_t<'_>,
    export: &str,
    args: &[i32],
) -> Result<i32, Trap> {
    let args: Vec<_> = args.iter().map(|&arg| i32_val(arg)).collect();
    let mut item = MaybeUninit::uninit();
    let mut result = MaybeUninit::uninit();
    let mut trap = ptr::null_mut();
    // SAFETY: the caller is live by contract; the item is a function if it was found, and the result is
    // written when there is neither error nor trap.
    unsafe {
        let found =
            bop::wasmtime_caller_export_get(&mut *caller, export.as_ptr(), export.len(), &mut item);
        assert!(found, "no export {export}");
        let func = item.assume_init().of.func;
        let context = bop::wasmtime_caller_context(&mut *caller);
        let error = bop::wasmtime_func_call(
            context,
            &func,
            args.as_ptr(),
            args.len(),
            &mut result,
            1,
            &mut trap,
        );
        if let Some(message) = error.text() {
            return Err(Trap {
                message,
                ..Trap::default()
            });
        }
        if !trap.is_null() {
            let trap = Box::from_raw(trap);
            return Err(Trap::read(&trap));
        }
        Ok(result.assume_init().of.i32)
    }
}

/// The i32 arguments of a host function.
///
/// # Safety
/// `args` and `len` are what the host function was given, and all its parameters are i32s.
pub unsafe fn i32_args(args: *const bop::wasmtime_val_t, len: usize) -> Vec<i32> {
    // SAFETY: by contract.
    (0..len).map(|i| unsafe { (*args.add(i)).of.i32 }).collect()
}

fn i32s(n: usize) -> bop::wasm_valtype_vec_t {
    (0..n)
        .map(|_| Some(bop::wasm_valtype_new(bop::WASM_I32)))
        .collect::<Vec<_>>()
        .into()
}
