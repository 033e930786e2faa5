//! THE thread-local.

use std::cell::Cell;
use std::ptr::null_mut;

loom::thread_local! {
    static WORKER: Cell<*mut ()> = Cell::new(null_mut());
}

pub fn worker() -> *mut () {
    WORKER.with(Cell::get)
}

pub fn set_worker(worker: *mut ()) -> *mut () {
    WORKER.with(|w| w.replace(worker))
}
