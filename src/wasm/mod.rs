//! All that knows Wasmtime: where it keeps its activations, stores as strands, preemption, calls of
//! guests.
//!
//! A *strand* is what workers run: a store with its fibers, or a single host fiber. The worker that
//! runs a strand owns its store, so the fibers of one store take turns without a lock.

pub mod activation;
pub mod bridge;
pub mod doors;
pub mod end;
pub mod fiber;
pub mod guest;
pub mod limits;
pub mod live;
pub mod local;
pub mod locate;
pub mod policy;
pub mod preempt;
pub mod room;
pub mod shadow;
pub mod shared;
pub mod signature;
pub mod strand;
pub mod wasi_ctx;
