//! THE thread-locals of this library.
//!
//! A fiber may suspend on one thread and go on on another. A compiler does not know this: it may
//! compute the address of a thread-local once per function and use it on both sides of a
//! suspension. Hence the one rule (W3): every access is a call of an `#[inline(never)]` function
//! of this file, and nothing these return that belongs to the thread is kept across a suspension.

use std::cell::Cell;
use std::ptr::null_mut;

thread_local! {
    /// The worker that this thread is, or null. Set and cleared by `sched::worker`.
    static WORKER: Cell<*mut ()> = const { Cell::new(null_mut()) };
    /// Nothing but an address inside this module's thread-local block; `wasm::locate` measures
    /// the distance from here to Wasmtime's word.
    static ANCHOR: Cell<usize> = const { Cell::new(0) };
}

/// The worker that this thread is, or null.
#[inline(never)]
pub fn worker() -> *mut () {
    WORKER.with(Cell::get)
}

/// Makes `worker` the worker of this thread, and returns the former one.
#[inline(never)]
pub fn set_worker(worker: *mut ()) -> *mut () {
    WORKER.with(|w| w.replace(worker))
}

/// An address in this thread's block of this module's thread-locals, the same distance from all
/// others of the block on every thread.
///
/// `black_box`: a function that only computes an address reads no memory, and of two calls of such a
/// function the compiler may drop one, even across a suspension.
#[inline(never)]
pub fn anchor() -> *mut u8 {
    std::hint::black_box(ANCHOR.with(|a| a.as_ptr().cast()))
}

/// The bounds of the calling thread's block of this module's thread-locals, from the dynamic
/// linker. `None` if it has no block (or the linker does not tell).
pub fn block() -> Option<(*mut u8, usize)> {
    struct Search {
        anchor: usize,
        found: Option<(*mut u8, usize)>,
    }
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the linker passes a valid `info`; `data` is the `Search` below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        let base = info.dlpi_tls_data as usize;
        // SAFETY: the linker's table has `dlpi_phnum` entries.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for h in headers.iter().filter(|h| h.p_type == libc::PT_TLS && base != 0) {
            let size = h.p_memsz as usize;
            if (base..base + size).contains(&search.anchor) {
                search.found = Some((base as *mut u8, size));
                return 1;
            }
        }
        0
    }
    let mut search = Search { anchor: anchor() as usize, found: None };
    // SAFETY: `visit` matches the type that the linker calls, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}
