//! Stackful coroutines: their stacks, the switch between them, and the state word that decides who
//! may touch them. Knows neither Wasm nor queues. The only place that names corosensei.
//!
//! ```text
//!   higher addresses
//!   ┌──────────────────────────┐ ◄── top: where a fiber starts
//!   │ frames of host and Wasm  │
//!   │            │             │
//!   │            ▼             │
//!   │                          │ ◄── Wasm's limit: bottom + the host's reserve. Wasm checks it
//!   ├ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤     on every function entry and traps.
//!   │ host's reserve           │     Only host functions may go on below.
//!   ├──────────────────────────┤ ◄── bottom
//!   │ guard: any access faults │
//!   └──────────────────────────┘ ◄── start of the slot
//! ```

pub mod stack;
pub mod state;
pub mod switch;
