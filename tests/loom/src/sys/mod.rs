//! The lowest layer, for models.

pub mod barrier;
pub mod clock;
pub mod futex;
pub mod sync;
pub mod tls;

/// Makes what all threads of an execution share, before there are any: whoever made it later would be ordered before
/// those that find it made.
pub fn boot() {
    traced::trail::boot();
    futex::boot();
    clock::boot();
    rustix::boot();
}
