//! Modules before they are compiled.

use std::ffi::c_char;

use wasmtime_c_api::{wasm_byte_vec_t, wasmtime_error_t};

use super::{call, copy_sized, fallible, get, slice, take, text};
use crate::wasm::shadow::expose::prepare;
use crate::wasm::shadow::find::{Choice, How};

/// How a module's stack pointer was found.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_stack_pointer_t {
    /// It was not: the module seems to keep no stack in its memory.
    BOP_STACK_POINTER_NONE = 0,
    /// The module exports it as `__stack_pointer`.
    BOP_STACK_POINTER_EXPORT = 1,
    /// The module imports it as `__stack_pointer`.
    BOP_STACK_POINTER_IMPORT = 2,
    /// The name section calls it `__stack_pointer`.
    BOP_STACK_POINTER_NAME = 3,
    /// It is the first global that the module defines, where LLVM's linker puts it, and functions use it
    /// as a stack pointer.
    BOP_STACK_POINTER_LAYOUT = 4,
    /// The options say so.
    BOP_STACK_POINTER_CHOSEN = 5,
}

impl From<How> for bop_stack_pointer_t {
    fn from(how: How) -> Self {
        match how {
            How::None => Self::BOP_STACK_POINTER_NONE,
            How::Export => Self::BOP_STACK_POINTER_EXPORT,
            How::Import => Self::BOP_STACK_POINTER_IMPORT,
            How::Name => Self::BOP_STACK_POINTER_NAME,
            How::Layout => Self::BOP_STACK_POINTER_LAYOUT,
            How::Chosen => Self::BOP_STACK_POINTER_CHOSEN,
        }
    }
}

/// What was found in a module, and done to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct bop_prepared_t {
    /// `sizeof(bop_prepared_t)`, set by the caller.
    pub size: usize,
    /// How the stack pointer was found.
    pub stack_pointer: bop_stack_pointer_t,
    /// Its index among the module's globals, if it was found.
    pub index: u32,
    /// Exports that were added.
    pub exports_added: usize,
}

/// What `bop_module_prepare` is told. Not to be used by two threads at once.
pub struct bop_prepare_options_t(Choice);

/// Options with their default: the stack pointer is looked for.
///
/// Returns: the options.
/// Ownership: the caller's, until `bop_prepare_options_delete`.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_prepare_options_new() -> *mut bop_prepare_options_t {
    call(std::ptr::null_mut(), || Box::into_raw(Box::new(bop_prepare_options_t(Choice::Find))))
}

/// Deletes options. NULL is fine.
///
/// Ownership: takes `options`.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_prepare_options_delete(options: *mut bop_prepare_options_t) {
    // SAFETY: per contract.
    call((), || drop(unsafe { take(options) }));
}

/// The stack pointer is the global with this name, `len` bytes of UTF-8, in the module's exports or in
/// its name section.
///
/// Ownership: copied.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live; `name` is NULL or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_prepare_options_stack_pointer_name(
    options: *mut bop_prepare_options_t,
    name: *const c_char,
    len: usize,
) {
    call((), || {
        // SAFETY: per contract.
        if let (Some(options), Some(name)) = unsafe { (options.as_mut(), text(name, len)) } {
            options.0 = Choice::Name(name);
        }
    });
}

/// The stack pointer is the global with this index; imported globals count first.
///
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `options` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_prepare_options_stack_pointer_index(
    options: *mut bop_prepare_options_t,
    index: u32,
) {
    call((), || {
        // SAFETY: per contract.
        if let Some(options) = unsafe { options.as_mut() } {
            options.0 = Choice::Index(index);
        }
    });
}

/// Makes a module ready to be shared by many fibers, before it is compiled: finds the global that is its
/// stack pointer, and adds what is missing of three exports, `__stack_pointer`, the memory, and the
/// table that function pointers are indices of (`__indirect_function_table`). No other byte changes. A
/// component is copied as it is.
///
/// Returns: NULL and the module in `*out`, for `wasmtime_module_new`; or an error, and `*out` is left
/// alone: not a module (in the binary format), the chosen global is not there or can't be a stack
/// pointer, a NULL.
/// Ownership: `*out` is the caller's (`wasm_byte_vec_delete`). `options` may be NULL, and `prepared`, which is
/// filled in as far as its `size` says.
/// Context: any thread or fiber.
/// Switches: never.
///
/// # Safety
///
/// `wasm` has `len` bytes; `options` is NULL or live; `out` is NULL or writable; `prepared` is NULL or
/// as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bop_module_prepare(
    wasm: *const u8,
    len: usize,
    options: *const bop_prepare_options_t,
    out: *mut wasm_byte_vec_t,
    prepared: *mut bop_prepared_t,
) -> *mut wasmtime_error_t {
    fallible(|| {
        // SAFETY: per contract. What `*out` holds may be anything, so no reference to it is made.
        let (wasm, options) = unsafe {
            get(out.cast::<u8>(), "out")?;
            (slice(wasm, len, "wasm")?, options.as_ref())
        };
        let done = prepare(wasm, options.map_or(&Choice::Find, |options| &options.0))?;
        let all = bop_prepared_t {
            size: 0,
            stack_pointer: done.how.into(),
            index: done.index,
            exports_added: done.added,
        };
        // SAFETY: per contract; the fields leave no padding.
        unsafe {
            if !prepared.is_null() {
                copy_sized(prepared, &all);
            }
            out.write(done.wasm.into_owned().into());
        }
        Ok(())
    })
}
