//! What a worker keeps for the strands that it runs. It belongs to the worker's thread: a fiber must ask for it
//! anew after each suspension.

use std::cell::Cell;
use std::ptr::null;

use super::fiber::{self, Fiber};
use super::live::Places;
use super::strand::Strand;
use crate::fiber::stack::Cache;

/// See the head of this file.
pub struct Local {
    /// The fiber that runs, or null between two.
    pub fiber: Cell<*const Fiber>,
    /// The strand whose turn it is, or null: this thread is its owner.
    pub strand: Cell<*const Strand>,
    /// Stacks of fibers that have ended here.
    pub stacks: Cache,
    /// Places for fibers that are spawned here.
    pub places: Places,
    /// The last id given to a fiber that was spawned here, and the last that may be.
    pub ids: Cell<(u64, u64)>,
}

impl Default for Local {
    fn default() -> Local {
        Local {
            fiber: Cell::new(null()),
            strand: Cell::new(null()),
            stacks: Cache::default(),
            places: Places::default(),
            ids: Cell::default(),
        }
    }
}

/// That of the worker which this thread is, whatever its runtime.
#[inline]
pub fn here<'a>() -> Option<&'a Local> {
    // SAFETY: the worker is this thread's, and outlives its run.
    fiber::worker().map(|worker| unsafe { (*worker).local() })
}

impl Local {
    /// Is it this strand's turn? Then the caller is its owner.
    #[inline]
    pub fn owns(&self, strand: &Strand) -> bool {
        std::ptr::eq(self.strand.get(), strand)
    }
}
