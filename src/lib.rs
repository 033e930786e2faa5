//! Green threads for WebAssembly: preemptive, work-stolen fibers on stock Wasmtime, with a C ABI.
//!
//! The layers, each of which knows only those below it:
//!
//! ```text
//!   capi      the exported functions: C types, casts, pointer checks; no logic
//!   runtime   engine set-up, life cycle, spawning, waiting, channels, what guests import
//!   wasm      all that knows Wasmtime: activations, stores as strands, preemption, shadow stacks
//!   sched     workers, run queues, stealing, idling, timers; knows no Wasm
//!   fiber     stacks, the switch, the fiber's state word
//!   sys       memory, guards, futex, clocks, signals, THE thread-locals
//! ```

mod capi;
#[cfg(test)]
mod facts;
mod fiber;
mod runtime;
mod sched;
mod sys;
mod wasm;

pub use capi::*;
/// Wasmtime's own C API, which this library contains.
pub use wasmtime_c_api::*;
