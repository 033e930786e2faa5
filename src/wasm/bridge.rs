//! Between Wasmtime's C types and its Rust types.
//!
//! The C API's boxes are `#[repr(C)]` or `#[repr(transparent)]` structures of one field, which is
//! private. Casting pointers reaches it; the assertions below and the pinned version (`=48.0.8`)
//! keep this honest.

use std::mem::{align_of, size_of};

use wasmtime::{AsContextMut, Caller, Config, Engine, Error, Global, Instance, InstancePre, Linker, Memory, Store, StoreContextMut};
use wasmtime_c_api::{
    WasmtimeStoreData, wasm_config_t, wasm_engine_t, wasm_trap_t, wasmtime_error_t,
    wasmtime_instance_pre_t, wasmtime_linker_t, wasmtime_store_t,
};

macro_rules! same_layout {
    ($($outer:ty, $inner:ty;)*) => {$(
        const _: () = assert!(
            size_of::<$outer>() == size_of::<$inner>() && align_of::<$outer>() == align_of::<$inner>()
        );
    )*};
}

same_layout! {
    wasm_config_t, Config;
    wasm_engine_t, Engine;
    wasm_trap_t, Error;
    wasmtime_error_t, Error;
    wasmtime_store_t, Store<WasmtimeStoreData>;
    wasmtime_instance_pre_t, InstancePre<WasmtimeStoreData>;
    wasmtime_linker_t, Linker<WasmtimeStoreData>;
    Store<()>, *mut ();
    Option<StoreContextMut<'static, ()>>, *mut ();
}

/// An error with a message.
pub fn error(message: impl Into<String>) -> Box<wasmtime_error_t> {
    Box::new(Error::msg(message.into()).into())
}

/// The configuration in a C box.
pub fn config(own: Box<wasm_config_t>) -> Config {
    // SAFETY: same layout; the box's memory goes to the allocator under the layout it came with.
    *unsafe { Box::from_raw(Box::into_raw(own).cast::<Config>()) }
}

/// An engine in a C box.
pub fn engine(engine: Engine) -> Box<wasm_engine_t> {
    // SAFETY: same layout.
    unsafe { Box::from_raw(Box::into_raw(Box::new(engine)).cast()) }
}

/// A trap in a C box.
pub fn trap(error: Error) -> Box<wasm_trap_t> {
    // SAFETY: same layout.
    unsafe { Box::from_raw(Box::into_raw(Box::new(error)).cast()) }
}

/// The error in a trap of C's.
pub fn error_of(trap: &wasm_trap_t) -> &Error {
    // SAFETY: same layout, and the borrow goes on.
    unsafe { &*(&raw const *trap).cast() }
}

/// The store in a C box.
pub fn store(store: &mut wasmtime_store_t) -> &mut Store<WasmtimeStoreData> {
    // SAFETY: same layout, and the borrow goes on.
    unsafe { &mut *(&raw mut *store).cast() }
}

/// The prepared instance in a C box.
pub fn instance_pre(pre: &wasmtime_instance_pre_t) -> &InstancePre<WasmtimeStoreData> {
    // SAFETY: same layout, and the borrow goes on.
    unsafe { &*(&raw const *pre).cast() }
}

/// The linker in a C box.
pub fn linker(linker: &mut wasmtime_linker_t) -> &mut Linker<WasmtimeStoreData> {
    // SAFETY: same layout, and the borrow goes on.
    unsafe { &mut *(&raw mut *linker).cast() }
}

/// The address of the store's innards, which is what C calls a `wasmtime_context_t *`.
pub fn context_address<T>(context: &StoreContextMut<'_, T>) -> *mut u8 {
    // SAFETY: `StoreContextMut` is `repr(transparent)` over a reference; the address is only copied.
    unsafe { std::ptr::read((&raw const *context).cast()) }
}

/// C's name for what is in a store.
#[allow(non_camel_case_types)]
pub struct wasmtime_context_t {
    _opaque: [u8; 0],
}

/// The context as C takes it.
pub fn context_of<T>(context: StoreContextMut<'_, T>) -> *mut wasmtime_context_t {
    context_address(&context).cast()
}

/// The number of the store that a function, or an instance, belongs to; 0 for the null function of C.
///
/// # Safety
///
/// `item` is readable, and holds one of these.
pub unsafe fn store_of<T>(item: *const T) -> u64 {
    // SAFETY: both are `repr(C)` and start with their store's number (`wasmtime_func_t` and
    // `wasmtime_instance_t` say so).
    unsafe { *item.cast::<u64>() }
}

/// Which global of its store it is.
pub fn global_number(global: Global) -> [u32; 3] {
    const _: () = assert!(size_of::<Global>() == 24);
    let at = (&raw const global).cast::<u32>();
    // SAFETY: `Global` is `repr(C)`: its store's number and three of its own (`wasmtime_global_t` says so).
    unsafe { [*at.add(2), *at.add(3), *at.add(4)] }
}

/// The number of an instance in its store.
///
/// # Safety
///
/// `instance` is readable, and an instance.
pub unsafe fn instance_number(instance: *const Instance) -> u32 {
    // SAFETY: its store's number, then its own (`wasmtime_instance_t` says so).
    unsafe { *instance.cast::<u32>().add(2) }
}

/// A number that no other memory of the same store has.
pub fn memory_number(memory: Memory) -> u64 {
    const _: () = assert!(size_of::<Memory>() == 24);
    let at = (&raw const memory).cast::<u32>();
    // SAFETY: `Memory` is `repr(C)`: its store's number, its instance's, a gap, and its own in there
    // (`wasmtime_memory_t` says so).
    let (instance, index) = unsafe { (*at.add(2), *at.add(4)) };
    u64::from(instance) << 32 | u64::from(index)
}

/// The number of the instance that calls a host function, in its store; `None` if it can't be told.
///
/// `Caller` is the store's context and the calling instance, in whatever order.
pub fn calling_instance<T>(caller: &mut Caller<'_, T>) -> Option<u32> {
    if size_of::<Caller<'_, ()>>() != 24 {
        return None;
    }
    let context = context_address(&caller.as_context_mut()) as usize;
    let at = (&raw const *caller).cast::<usize>();
    // SAFETY: three words, of which two are the instance: its store's number, then its own
    // (`wasmtime_instance_t` says so), then a gap. The context's address tells where it begins.
    unsafe {
        if *at == context {
            Some(*at.add(2).cast::<u32>())
        } else {
            (*at.add(2) == context).then(|| *at.add(1).cast::<u32>())
        }
    }
}
