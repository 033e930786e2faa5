//! Sharing an instance among the fibers of its store.

use std::sync::Arc;

use wasmtime::Instance;

use super::{guest, on_worker};
use crate::wasm::bridge;
use crate::wasm::shadow::Plan;
use crate::wasm::strand::Strand;

/// Shares `instance`, from a host thread.
///
/// # Safety
///
/// `instance` is readable, and an instance of any store that lives.
pub unsafe fn share(strand: &Arc<Strand>, instance: *const Instance, plan: &Plan) -> Result<(), String> {
    if on_worker() {
        return Err("called from a fiber: share an instance before its store has fibers".into());
    }
    // SAFETY: per contract.
    if unsafe { bridge::store_of(instance) } != strand.store_id {
        return Err("instance belongs to another store".into());
    }
    let entered = strand.doors.held_here();
    if !entered {
        strand.enter()?;
    }
    let shared = if strand.fibers() > 0 {
        Err("the store has fibers already, which would go on without a stack of their own".into())
    } else {
        // SAFETY: per contract.
        let instance = unsafe { *instance };
        let shared = strand.share(plan, None, |store, name| instance.get_export(store, name));
        if shared.is_ok() {
            // SAFETY: an instance.
            guest::is_ready(strand, unsafe { bridge::instance_number(&instance) });
        }
        shared.map_err(|e| e.to_string())
    };
    if !entered {
        strand.exit()?;
    }
    shared
}
