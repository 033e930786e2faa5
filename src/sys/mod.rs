//! The operating system, as thinly as possible: memory, guards, futexes, clocks, signals and THE
//! thread-locals. Nothing here knows what a fiber is.

pub mod barrier;
pub mod clock;
pub mod fault;
pub mod futex;
pub mod memory;
pub mod pipe;
pub mod sync;
pub mod tls;
pub mod tripwire;
