//! Where Wasmtime keeps what must be switched with a fiber, found by observation once per process.
//!
//! **The thread-local word** (W1, W2). All thread-local state of Wasmtime is one word: the pointer
//! to the youngest activation, with bit 0 = "this thread is initialised for traps". There is no
//! public accessor. A probe thread compares this module's block of thread-locals at four moments:
//!
//! ```text
//!   before anything     after tls_eager_initialize   inside a host function        after the call
//!          0                       1                 pointer into this stack | 1         1
//! ```
//!
//! Exactly one word may go that way. Its distance from a thread-local of ours is the same on every
//! thread, since both lie in the block of one module.
//!
//! **The store's words** (W4). `VMStoreContext` lies inside the store, so its distance from what C
//! calls `wasmtime_context_t *` is a constant of this build. It is measured on two stores, by
//! way of a Wasm function: `Func::to_raw` → `VMFuncRef` → `VMContext` (which starts with the magic
//! `core`) → `VMStoreContext`.
//!
//! If anything is not as expected the runtime is not made: never guess.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wasmtime::{Config, Engine, Func, Instance, Module, Store};
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_environ::{HostPtr, PtrSize};

use super::bridge;
use crate::sys::tls;

/// Distance of Wasmtime's word from `tls::anchor`, once found.
static WORD: AtomicIsize = AtomicIsize::new(0);
/// Distance of `VMStoreContext` from the store's context address, once found.
static STORE: AtomicUsize = AtomicUsize::new(0);

/// Finds both places, unless that was done. Takes some milliseconds the first time.
pub fn locate() -> Result<(), String> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            // A fresh thread: Wasmtime has not touched its thread-locals.
            let probe = std::thread::Builder::new().name("bop-probe".into()).spawn(probe);
            let probe = probe.map_err(|e| format!("no thread to locate Wasmtime's state: {e}"))?;
            let (word, store) = probe.join().map_err(|_| "the probe panicked".to_string())??;
            // Relaxed: whoever reads them came through this `OnceLock`, or got its fiber or
            // runtime from somebody who did.
            STORE.store(store, Ordering::Relaxed);
            WORD.store(word, Ordering::Relaxed);
            Ok(())
        })
        .clone()
}

/// Distance of the thread-local word from `tls::anchor`. Only after [`locate`].
#[inline]
pub(super) fn word_distance() -> isize {
    let distance = WORD.load(Ordering::Relaxed);
    debug_assert_ne!(distance, 0, "located first");
    distance
}

/// Distance of `VMStoreContext` from the store's context address. Only after [`locate`].
#[inline]
pub(super) fn store_distance() -> usize {
    let distance = STORE.load(Ordering::Relaxed);
    debug_assert_ne!(distance, 0, "located first");
    distance
}

/// A copy of this thread's block of thread-locals.
#[inline(never)]
fn snapshot() -> Option<(*mut u8, Vec<usize>)> {
    let (base, len) = tls::block()?;
    let first = base.align_offset(align_of::<usize>());
    let words = (len - first.min(len)) / size_of::<usize>();
    // SAFETY: the block is this thread's and lives as long as the thread. Its words are plain
    // memory; volatile, since they belong to code that the compiler does not see.
    let read = |i| unsafe { base.add(first).cast::<usize>().add(i).read_volatile() };
    // SAFETY: `first` is inside the block, or the block has no words.
    Some((unsafe { base.add(first) }, (0..words).map(read).collect()))
}

/// The first frame of the probe thread: everything that [`probe_below`] does lies below it.
fn probe() -> Result<(isize, usize), String> {
    let outermost = std::hint::black_box(0_u8);
    probe_below(std::hint::black_box(&raw const outermost) as usize)
}

/// Looks at the word's four moments; see the head of this file. Not inlined, nor may what it calls
/// be inlined further up: an activation must lie between `outermost` and the host function.
#[inline(never)]
fn probe_below(outermost: usize) -> Result<(isize, usize), String> {
    let failed = |e: wasmtime::Error| format!("locating Wasmtime's state: {e:#}");
    let no_block = || "the dynamic linker does not tell where thread-locals are".to_string();
    let mut config = Config::new();
    // One function is compiled: no threads for that.
    config.parallel_compilation(false);
    let engine = Engine::new(&config).map_err(failed)?;
    let mut store = Store::new(&engine, ());
    let inside = Arc::new(Mutex::new((0, Vec::new())));
    let seen = Arc::clone(&inside);
    let host = Func::wrap(&mut store, move || {
        let here = 0_u8;
        let words = snapshot().map(|(_, words)| words).unwrap_or_default();
        *seen.lock().unwrap() = ((&raw const here) as usize, words);
    });
    let (base, before) = snapshot().ok_or_else(no_block)?;
    Engine::tls_eager_initialize();
    let (_, ready) = snapshot().ok_or_else(no_block)?;
    host.call(&mut store, &[], &mut []).map_err(failed)?;
    let (_, after) = snapshot().ok_or_else(no_block)?;
    let (deepest, during) = inside.lock().unwrap().clone();
    let found = candidates([&before, &ready, &during, &after], deepest..outermost);
    let [index] = found[..] else {
        return Err(format!(
            "of {} words exactly one must behave as Wasmtime's activation pointer, but {} do: \
             this build of Wasmtime is not the one that BOP knows",
            before.len(),
            found.len()
        ));
    };
    let word = base as isize + (index * size_of::<usize>()) as isize;
    Ok((word - tls::anchor() as isize, store_words(&engine).map_err(failed)??))
}

/// Which words went `0`, `1`, `pointer into the stack | 1`, `1`.
fn candidates(moments: [&[usize]; 4], stack: std::ops::Range<usize>) -> Vec<usize> {
    let [before, ready, during, after] = moments;
    let fits = |&i: &usize| {
        let word = |moment: &[usize]| moment.get(i).copied();
        word(before) == Some(0)
            && word(ready) == Some(1)
            && word(during).is_some_and(|w| w & 1 == 1 && stack.contains(&(w & !1)))
            && word(after) == Some(1)
    };
    (0..before.len()).filter(fits).collect()
}

/// `(module (func (export "f")))`
const MODULE: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 0x66, 0, 0, 10,
    4, 1, 2, 0, 0x0b,
];

/// The distance of `VMStoreContext` from the context address of a store of the C API.
fn store_words(engine: &Engine) -> wasmtime::Result<Result<usize, String>> {
    let module = Module::new(engine, MODULE)?;
    let mut distances = [0; 2];
    for distance in &mut distances {
        let c_engine = bridge::engine(engine.clone());
        let mut own = wasmtime_c_api::wasmtime_store_new(&c_engine, std::ptr::null_mut(), None);
        let store: &mut Store<WasmtimeStoreData> = bridge::store(&mut own);
        let func = Instance::new(&mut *store, &module, &[])?.get_func(&mut *store, "f");
        let func = func.ok_or_else(|| wasmtime::Error::msg("the probe module has no function"))?;
        let Some(words) = store_context_of(func.to_raw(&mut *store).cast()) else {
            return Ok(Err("a Wasm function's context does not start with `core`".into()));
        };
        *distance = (words as usize).wrapping_sub(bridge::context_address(
            &wasmtime::AsContextMut::as_context_mut(store),
        ) as usize);
    }
    // A store is some kilobytes at the most.
    let sane = distances[0] == distances[1] && (1..65536).contains(&distances[0]);
    Ok(if sane { Ok(distances[0]) } else { Err(format!("`VMStoreContext` lies at {distances:?}")) })
}

/// Is this the `VMFuncRef` of a Wasm function, and not of one of the host's? It is that of a live store.
pub fn is_of_wasm(func_ref: *mut u8) -> bool {
    store_context_of(func_ref).is_some()
}

/// The `VMStoreContext` of the store of a Wasm function, from its `VMFuncRef`; `None` if that is
/// no Wasm function.
fn store_context_of(func_ref: *mut u8) -> Option<*mut u8> {
    let vmctx_at = usize::from(HostPtr.vm_func_ref().vmctx());
    let store_at = usize::from(HostPtr.vmctx_store_context());
    // SAFETY: a `VMFuncRef` of a live store; `wasmtime-environ` of this very version gives the
    // offsets; every kind of `VMContext` starts with its magic.
    unsafe {
        let vmctx = func_ref.add(vmctx_at).cast::<*mut u8>().read();
        let magic = vmctx.cast::<[u8; 4]>().read();
        (&magic == b"core").then(|| vmctx.add(store_at).cast::<*mut u8>().read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_history_is_a_candidate() {
        let stack = 0x1000..0x2000;
        let mut moments = [vec![0; 7], vec![1; 7], vec![0x1801; 7], vec![1; 7]];
        moments[0][1] = 1;
        moments[1][2] = 0;
        moments[2][3] = 0x1800; // bit 0 is lost
        moments[2][4] = 0x2801; // points elsewhere
        moments[3][5] = 0;
        let [a, b, c, d] = &moments;
        assert_eq!(candidates([a, b, c, d], stack.clone()), [0, 6], "two: must be refused");
        moments[3][6] = 7;
        let [a, b, c, d] = &moments;
        assert_eq!(candidates([a, b, c, d], stack), [0]);
    }
}
