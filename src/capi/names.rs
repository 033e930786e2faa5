//! The enumerations, and their values' names.

use std::ffi::c_char;

use crate::runtime::wait::Status;
use crate::wasm::end::Outcome;

/// What a call inside a fiber returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_status_t {
    /// What was waited for has happened.
    BOP_OK = 0,
    /// The deadline came first.
    BOP_TIMEOUT = 1,
    /// The calling fiber was cancelled. It should clean up and return.
    BOP_CANCELLED = 2,
    /// The fiber that the call is about has finished.
    BOP_FINISHED = 3,
    /// Only fibers may make this call.
    BOP_NOT_FIBER = 4,
    /// The call would wait for itself, or block a worker: a fiber that joins itself or a fiber of
    /// another runtime, a thread that joins a fiber of the store that it has entered, a finalizer that
    /// a worker runs between two fibers, a host function that the guest's allocator calls while it makes room for a fiber's
    /// stack, or who locks a mutex that it holds. Or the caller unlocks a mutex that it does not hold.
    BOP_NOT_ALLOWED = 5,
    /// The handle is NULL, or a number makes no sense.
    BOP_INVALID = 6,
    /// The fiber may not be suspended: its store has other fibers and a heap of garbage-collected
    /// objects, and a collection would not see what the suspended fiber refers to.
    BOP_STORE_HAS_GC = 7,
    /// The channel is closed; to a receiver: and nothing is left in it. Or the descriptor was closed.
    BOP_CLOSED = 8,
    /// There can be no more of something: descriptors that are waited for, or threads.
    BOP_LIMIT = 9,
    /// The descriptor is not open, or of a kind that nobody can wait for (a file, a directory).
    BOP_FAILED = 10,
    /// The mutex is locked, and is the caller's: but the fiber that had it before has ended without unlocking
    /// it. What it protects may be half done.
    BOP_ABANDONED = 11,
}

/// How a fiber ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_outcome_t {
    /// Its function returned; `bop_fiber_results` has the results.
    BOP_OUTCOME_RETURNED = 0,
    /// Wasm trapped, or a host function that Wasm called failed; `bop_fiber_take_trap` has it.
    BOP_OUTCOME_TRAPPED = 1,
    /// It was cancelled, before it began or on its way. If it was in Wasm then, there is a trap with
    /// the backtrace.
    BOP_OUTCOME_CANCELLED = 2,
    /// The guest called WASI's `proc_exit`; `bop_fiber_exit_code` has the code.
    BOP_OUTCOME_EXITED = 3,
    /// The guest's function was never called: the set-up or the instantiation failed. The trap has the
    /// message.
    BOP_OUTCOME_FAILED = 4,
    /// Its deadline, or that of its store, has passed (`bop_spawn_options_deadline`, `bop_store_deadline`); as with
    /// `BOP_OUTCOME_CANCELLED`, on its way or before it began.
    BOP_OUTCOME_TIMED_OUT = 5,
    /// It, or its store, has used up its time on a processor (`bop_spawn_options_cpu_budget`,
    /// `bop_store_cpu_budget`).
    BOP_OUTCOME_OUT_OF_BUDGET = 6,
}

/// What a fiber is doing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_state_t {
    /// It waits for its turn.
    BOP_STATE_READY = 0,
    /// A worker is running it.
    BOP_STATE_RUNNING = 1,
    /// It waits for something: a time, an unpark, the end of another fiber, a descriptor, a lock, and so on.
    BOP_STATE_PARKED = 2,
    /// It has ended.
    BOP_STATE_FINISHED = 3,
}

/// How the guard below each fiber's stack is made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_guard_t {
    /// The better one that the kernel has.
    BOP_GUARD_AUTO = 0,
    /// `MADV_GUARD_INSTALL` (Linux 6.13): costs no mapping, so there can be a million fibers.
    BOP_GUARD_INSTALL = 1,
    /// `mprotect`: works everywhere; each guard costs the process two mappings, and the usual limit
    /// of 65,530 mappings then means about 32,000 fibers.
    BOP_GUARD_MPROTECT = 2,
}

/// What a trap means to the other fibers of its store.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum bop_trap_policy_t {
    /// It ends its own fiber. The others go on, with whatever the trap left in their memory.
    BOP_TRAP_ISOLATE = 0,
    /// It ends all fibers of the store: the others are cancelled, and later spawns are refused with the
    /// first trap as the reason.
    BOP_TRAP_POISON = 1,
}

impl From<Status> for bop_status_t {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::BOP_OK,
            Status::Timeout => Self::BOP_TIMEOUT,
            Status::Cancelled => Self::BOP_CANCELLED,
            Status::NotFiber => Self::BOP_NOT_FIBER,
            Status::NotAllowed => Self::BOP_NOT_ALLOWED,
            Status::StoreHasGc => Self::BOP_STORE_HAS_GC,
            Status::Closed => Self::BOP_CLOSED,
            Status::Limit => Self::BOP_LIMIT,
            Status::Failed => Self::BOP_FAILED,
            Status::Invalid => Self::BOP_INVALID,
            Status::Abandoned => Self::BOP_ABANDONED,
        }
    }
}

impl From<Outcome> for bop_outcome_t {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Returned => Self::BOP_OUTCOME_RETURNED,
            Outcome::Trapped => Self::BOP_OUTCOME_TRAPPED,
            Outcome::Cancelled => Self::BOP_OUTCOME_CANCELLED,
            Outcome::Exited => Self::BOP_OUTCOME_EXITED,
            Outcome::Failed => Self::BOP_OUTCOME_FAILED,
            Outcome::TimedOut => Self::BOP_OUTCOME_TIMED_OUT,
            Outcome::OutOfBudget => Self::BOP_OUTCOME_OUT_OF_BUDGET,
        }
    }
}

// What C passes for an enumeration may be any number, which a Rust enumeration must never hold. The
// header has the enumerations' names in place of these (cbindgen.toml).
/// A `bop_status_t` of C's.
pub type bop_status_number = u32;
/// A `bop_outcome_t` of C's.
pub type bop_outcome_number = u32;
/// A `bop_state_t` of C's.
pub type bop_state_number = u32;
/// A `bop_guard_t` of C's.
pub type bop_guard_number = u32;
/// A `bop_trap_policy_t` of C's.
pub type bop_trap_policy_number = u32;

fn name(names: &[&'static std::ffi::CStr], value: u32) -> *const c_char {
    names.get(value as usize).map_or(c"unknown".as_ptr(), |name| name.as_ptr())
}

/// The version of this library, as `major.minor.patch`.
///
/// Returns: a string that lives for ever.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// What a status means, in a few words.
///
/// Returns: a string that lives for ever; "unknown" for a number that is no status.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_status_name(status: bop_status_number) -> *const c_char {
    let names = [
        c"ok",
        c"timed out",
        c"cancelled",
        c"already finished",
        c"not called from a fiber",
        c"not allowed here",
        c"invalid handle",
        c"the store has a GC heap",
        c"closed",
        c"a limit is reached",
        c"failed",
        c"abandoned by a fiber that has ended",
    ];
    name(&names, status)
}

/// What an outcome means, in a word.
///
/// Returns: a string that lives for ever; "unknown" for a number that is no outcome.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_outcome_name(outcome: bop_outcome_number) -> *const c_char {
    let names = [
        c"returned",
        c"trapped",
        c"cancelled",
        c"exited",
        c"failed",
        c"timed out",
        c"out of budget",
    ];
    name(&names, outcome)
}

/// What a state means, in a word.
///
/// Returns: a string that lives for ever; "unknown" for a number that is no state.
/// Context: any thread or fiber.
/// Switches: never.
#[unsafe(no_mangle)]
pub extern "C" fn bop_state_name(state: bop_state_number) -> *const c_char {
    name(&[c"ready", c"running", c"parked", c"finished"], state)
}
