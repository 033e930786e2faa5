//! Both sides are fences, as on a kernel without `membarrier`. What the fast light side rests on, that `membarrier`
//! is a fence in every running thread, is not modelled.

use traced::atomic::{Ordering, fence};

pub fn light() {
    fence(Ordering::SeqCst);
}

pub fn heavy() {
    fence(Ordering::SeqCst);
}
