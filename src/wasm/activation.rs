//! Saving and restoring an activation: what Wasmtime remembers of the Wasm on a stack.
//!
//! Two places hold it. The **thread-local word** points to the youngest activation of whatever
//! stack the thread is on. The **store's words** say where the youngest Wasm of the store was entered
//! and left, and how far its stack reaches. A fiber that is switched out takes both along:
//!
//! ```text
//!                    thread-local word             store's words
//!   each switch      swapped                       left alone: nobody looks at them
//!   another fiber    -                             saved for the last fiber, the next one's loaded
//!     of the store                                 (`strand`: "the loaded fiber")
//!   a host thread    its own                       saved for the last fiber, the store's own loaded
//!     uses the store
//! ```
//!
//! This file and `locate` are the only ones with knowledge of Wasmtime's layout.

use wasmtime::AsContextMut;
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_environ::{HostPtr, PtrSize};

use super::bridge::{self, wasmtime_context_t};
use super::locate;
use crate::sys::tls;

/// Bit 0 of the thread-local word: this thread is initialised for traps. It belongs to the thread
/// and never moves (W1).
const INITIALISED: usize = 1;

/// The thread-local word of the thread that made this value. Must not be kept across a suspension
/// (hence neither `Send` nor `Sync`): a worker's own code, which never moves, may keep it.
#[derive(Clone, Copy)]
pub struct ThreadWord(*mut usize);

impl ThreadWord {
    /// The word of the calling thread. Only after [`locate::locate`].
    pub fn here() -> ThreadWord {
        ThreadWord(tls::anchor().wrapping_offset(locate::word_distance()).cast())
    }

    /// The pointer to the youngest activation on this thread; 0 for none.
    #[inline]
    pub fn get(self) -> usize {
        // SAFETY: the word is this thread's and lives as long as the thread (see `locate`).
        unsafe { self.0.read_volatile() & !INITIALISED }
    }

    /// Replaces the pointer, and keeps the thread's bit.
    ///
    /// # Safety
    ///
    /// `pointer` is 0 or what [`ThreadWord::get`] gave for the stack that is about to run.
    #[inline]
    pub unsafe fn set(self, pointer: usize) {
        debug_assert_eq!(pointer & INITIALISED, 0);
        // SAFETY: as in `get`; nobody else touches the word of this thread.
        unsafe { self.0.write_volatile(pointer | self.0.read_volatile() & INITIALISED) }
    }
}

/// The words of a store that belong to whatever stack its Wasm runs on. [`StoreWords::read`] and
/// [`StoreWords::write`] are a pair: a field forgotten in one of them does not compile.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// Wasm traps when its stack pointer would fall below. `usize::MAX`: no Wasm on this stack yet,
    /// and `enter_wasm` sets it (W5); so each fiber brings its own from its first entry on.
    pub stack_limit: usize,
    /// Where the youngest Wasm left for the host: what a backtrace starts at.
    exit_fp: usize,
    exit_pc: usize,
    /// Where the youngest Wasm was entered: what a trap unwinds to.
    entry_sp: usize,
    entry_fp: usize,
    entry_trap_handler: usize,
    /// The chain of stacks of the stack-switching proposal, its kind and its pointer.
    stack_chain: [usize; 2],
    /// The addresses of this stack's guard: a fault there is a stack overflow (W7).
    pub guard: [usize; 2],
}

/// The address of a store's `VMStoreContext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreWords(*mut u8);

macro_rules! words {
    ($($field:ident: $offset:ident,)*) => {
        impl StoreWords {
            /// Copies the words out of the store.
            ///
            /// # Safety
            ///
            /// The store lives, and the caller alone uses it.
            #[inline]
            pub unsafe fn read(self) -> Words {
                // SAFETY: per contract; the offsets are those of this very version.
                unsafe { Words { $($field: *self.at(HostPtr.vm_store_context().$offset())),* } }
            }

            /// Copies the words into the store.
            ///
            /// # Safety
            ///
            /// As for `read`; and the words are those of the stack that runs next in this store.
            #[inline]
            pub unsafe fn write(self, words: &Words) {
                let Words { $($field),* } = *words;
                // SAFETY: as in `read`.
                unsafe { $(*self.at(HostPtr.vm_store_context().$offset()) = $field;)* }
            }
        }
    };
}

words! {
    stack_limit: stack_limit,
    exit_fp: last_wasm_exit_trampoline_fp,
    exit_pc: last_wasm_exit_pc,
    entry_sp: last_wasm_entry_sp,
    entry_fp: last_wasm_entry_fp,
    entry_trap_handler: last_wasm_entry_trap_handler,
    stack_chain: stack_chain,
    guard: async_guard_range,
}

impl StoreWords {
    /// The words of a store of the C API. Only after [`locate::locate`].
    pub fn of(mut store: impl AsContextMut<Data = WasmtimeStoreData>) -> StoreWords {
        StoreWords::of_context(bridge::context_of(store.as_context_mut()))
    }

    /// The same, from the context that C has.
    #[inline]
    pub fn of_context(context: *mut wasmtime_context_t) -> StoreWords {
        StoreWords(context.cast::<u8>().wrapping_add(locate::store_distance()))
    }

    /// How many bytes the store's heap of garbage-collected objects has; 0 before the first one
    /// (W9).
    ///
    /// # Safety
    ///
    /// The store lives, and the caller alone uses it.
    pub unsafe fn gc_heap(self) -> usize {
        // SAFETY: as in `read`.
        unsafe { self.at::<usize>(HostPtr.vm_store_context().gc_heap_current_length()).read_volatile() }
    }

    #[inline]
    fn at<T>(self, offset: u8) -> *mut T {
        self.0.wrapping_add(usize::from(offset)).cast()
    }
}

impl Words {
    /// Do both say that the same call was made last? Each call sets the limit, if only one of a host
    /// function, and puts it back; the words of the entry belong to Wasm.
    pub fn same_call(&self, other: &Words) -> bool {
        let of = |w: &Words| (w.stack_limit, w.entry_sp, w.entry_fp);
        of(self) == of(other)
    }

    /// The words for a stack that has no Wasm on it yet, from those of a store that runs none.
    pub fn fresh(base: &Words, limit: usize, guard: (usize, usize)) -> Words {
        Words { stack_limit: limit, guard: [guard.0, guard.1], ..*base }
    }
}
