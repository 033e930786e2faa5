//! loom's atomics, which leave a trail to be read when an execution fails.

pub mod atomic;
pub mod trail;
