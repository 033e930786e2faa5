//! The state word of a fiber: one atomic word, all its transitions in this file.
//!
//! ```text
//!             spawn                    commit_park
//!   (new) ──────────► ACTIVE ────────────────────────► PARKED
//!                       │  ▲                              │
//!                finish │  └──────────────────────────────┘
//!                       ▼       signal (the one that finds it parked and of interest)
//!                    FINISHED
//! ```
//!
//! | state    | executing          | who holds it                        | who owns stack and words |
//! |----------|--------------------|-------------------------------------|--------------------------|
//! | ACTIVE   | perhaps, on one    | its strand: in the inbox, in the    | the worker that runs the |
//! |          | worker at most     | ready list, or taken out to run     | strand                   |
//! | PARKED   | no                 | nobody: only who signals it         | nobody                   |
//! | FINISHED | no, never again    | handles                             | (stack went back)        |
//!
//! A fiber that yields stays ACTIVE: yielding touches no shared word at all. `commit_park` is
//! called by the *worker*, after the switch away from the fiber's stack is complete; that is why a
//! signal can never run a fiber whose stack is still in use (invariant **one owner**).
//!
//! Signals are sticky bits. A fiber that blocks says which it waits for (`WANTS_PERMIT`); `WAKE`
//! always counts, `CANCEL` unless it is `DEAF`. The one `signal` that moves PARKED to ACTIVE must enqueue the fiber,
//! and it is the only one that may (invariant **one waker**). A `WAKE` that does so is thereby delivered, and
//! leaves no bit.

use crate::sys::sync::atomic::{AtomicU32, Ordering};

const STATE: u32 = 0b11;
const ACTIVE: u32 = 0;
const PARKED: u32 = 1;
const FINISHED: u32 = 2;

/// What a fiber may be signalled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Signal {
    /// What it waits for inside the runtime has happened (a timer, the end of a joined fiber).
    Wake = 1 << 2,
    /// `bop_unpark`: the permit that `bop_park` consumes.
    Permit = 1 << 3,
    /// `bop_fiber_cancel`; stays for ever.
    Cancel = 1 << 4,
}

const WANTS_PERMIT: u32 = 1 << 5;
/// A fiber that waits for what must come first is not woken by a cancel.
const DEAF: u32 = 1 << 7;
/// Somebody outside its strand waits for its end.
const JOINED: u32 = 1 << 6;

/// What wakes a parked fiber, beside a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Interest {
    /// A cancel.
    Cancel = 0,
    /// A cancel, and the permit.
    Permit = WANTS_PERMIT,
    /// Nothing.
    Nothing = DEAF,
}

/// The signals that a fiber with this word waits for.
fn awaited(word: u32) -> u32 {
    let permit = if word & WANTS_PERMIT != 0 { Signal::Permit as u32 } else { 0 };
    let cancel = if word & DEAF == 0 { Signal::Cancel as u32 } else { 0 };
    Signal::Wake as u32 | permit | cancel
}

/// What [`Word::finish`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// It had been cancelled.
    pub cancelled: bool,
    /// Somebody has to be told: see [`Word::join`].
    pub joined: bool,
}

/// What [`Word::signal`] found, and so what its caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// The fiber was parked and is active now: enqueue it, exactly once.
    Enqueue,
    /// The fiber will see the signal by itself.
    Noted,
    /// As `Noted`, and the signal was set before.
    Again,
    /// The fiber has finished; nothing was changed.
    Finished,
}

/// A fiber's state word.
#[derive(Debug, Default)]
pub struct Word(AtomicU32);

impl Word {
    /// Sets a signal.
    pub fn signal(&self, signal: Signal) -> Signalled {
        let bit = signal as u32;
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let wakes = match old & STATE {
                FINISHED => return Signalled::Finished,
                PARKED => awaited(old) & bit != 0,
                _ => false,
            };
            let new = match signal {
                Signal::Wake if wakes => (old & !STATE) | ACTIVE,
                _ if wakes => (old & !STATE) | ACTIVE | bit,
                _ => old | bit,
            };
            // Release: what the signaller did before is seen by the fiber once it sees the bit
            // (Acquire in `take`, `commit_park`, `cancelled`); that is why a bit that is set
            // already is written all the same. Acquire: the one who moves PARKED
            // to ACTIVE takes over the fiber from the worker that parked it (its Release).
            match self.0.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if wakes => return Signalled::Enqueue,
                Ok(_) if old & bit != 0 => return Signalled::Again,
                Ok(_) => return Signalled::Noted,
                Err(now) => old = now,
            }
        }
    }

    /// Parks an active fiber whose stack is no longer in use; false if a signal it waits for has
    /// come meanwhile, and it must be run again instead.
    #[must_use]
    pub fn commit_park(&self) -> bool {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(old & STATE, ACTIVE, "only a running fiber parks");
            if old & awaited(old) != 0 {
                return false;
            }
            let new = (old & !STATE) | PARKED;
            // Release: hands the fiber's stack and words to whoever signals it (see `signal`).
            match self.0.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
    }

    /// Says, before a fiber suspends to park, what shall wake it beside a wake-up. Only the fiber itself calls
    /// this.
    pub fn interest(&self, interest: Interest) {
        let wanted = interest as u32;
        // A plain load first: it usually waits for what it waited for before.
        let differs = (self.0.load(Ordering::Relaxed) ^ wanted) & (WANTS_PERMIT | DEAF);
        if differs != 0 {
            // Nobody else changes these bits.
            self.0.fetch_xor(differs, Ordering::Relaxed);
        }
    }

    /// Consumes a signal: true if it was set. `Cancel` is never consumed. Only the fiber itself
    /// calls this.
    pub fn take(&self, signal: Signal) -> bool {
        debug_assert_ne!(signal, Signal::Cancel);
        let bit = signal as u32;
        // A plain load first: the usual answer is no.
        self.0.load(Ordering::Relaxed) & bit != 0
            && self.0.fetch_and(!bit, Ordering::Acquire) & bit != 0
    }

    /// Has the fiber been cancelled?
    #[inline]
    pub fn cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) & Signal::Cancel as u32 != 0
    }

    /// Notes that somebody wants to be told of the end; false if the fiber has finished.
    #[must_use]
    pub fn join(&self) -> bool {
        // One word: either `finish` sees the bit, or this sees FINISHED (Acquire: and the end).
        self.0.fetch_or(JOINED, Ordering::Acquire) & STATE != FINISHED
    }

    /// Ends an active fiber.
    pub fn finish(&self) -> Finish {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(old & STATE, ACTIVE, "only a running fiber finishes");
            let new = (old & !STATE) | FINISHED;
            // Release: publishes the fiber's result to whoever sees FINISHED (Acquire below).
            match self.0.compare_exchange_weak(old, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    let cancelled = old & Signal::Cancel as u32 != 0;
                    return Finish { cancelled, joined: old & JOINED != 0 };
                }
                Err(now) => old = now,
            }
        }
    }

    /// Has the fiber finished? If so, its result may be read.
    pub fn finished(&self) -> bool {
        self.0.load(Ordering::Acquire) & STATE == FINISHED
    }

    /// Is the fiber parked? True only for the moment.
    pub fn parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == PARKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_wakes_only_who_wants_it() {
        let w = Word::default();
        w.interest(Interest::Cancel);
        assert!(w.commit_park());
        assert_eq!(w.signal(Signal::Permit), Signalled::Noted);
        assert!(w.parked());
        assert_eq!(w.signal(Signal::Wake), Signalled::Enqueue);
        assert!(w.take(Signal::Permit) && !w.take(Signal::Permit));
        assert!(!w.take(Signal::Wake), "delivered by waking it");
        w.interest(Interest::Permit);
        assert!(w.commit_park());
        assert_eq!(w.signal(Signal::Permit), Signalled::Enqueue);
        assert_eq!(w.signal(Signal::Permit), Signalled::Again, "woken once");
    }

    #[test]
    fn a_signal_before_the_park_is_not_lost() {
        for signal in [Signal::Wake, Signal::Permit, Signal::Cancel] {
            let w = Word::default();
            w.interest(Interest::Permit);
            assert_eq!(w.signal(signal), Signalled::Noted);
            assert!(!w.commit_park(), "{signal:?} must keep it awake");
        }
    }

    #[test]
    fn a_cancel_wakes_all_but_those_that_must_not_hear_it() {
        let w = Word::default();
        w.interest(Interest::Nothing);
        assert!(w.commit_park());
        assert_eq!(w.signal(Signal::Cancel), Signalled::Noted);
        assert_eq!(w.signal(Signal::Permit), Signalled::Noted);
        assert!(w.parked() && w.cancelled());
        assert_eq!(w.signal(Signal::Wake), Signalled::Enqueue);
        assert!(w.commit_park(), "still deaf");
        assert_eq!(w.signal(Signal::Wake), Signalled::Enqueue);
        w.interest(Interest::Permit);
        assert!(!w.commit_park(), "it hears again");
    }

    #[test]
    fn a_finished_fiber_takes_no_signal() {
        let w = Word::default();
        assert_eq!(w.finish(), Finish { cancelled: false, joined: false });
        assert_eq!(w.signal(Signal::Cancel), Signalled::Finished);
        assert!(w.finished() && !w.cancelled());
    }

    #[test]
    fn who_joins_in_time_is_seen_and_who_comes_late_sees_the_end() {
        let w = Word::default();
        assert!(w.join() && w.join());
        assert!(w.finish().joined);
        assert!(!w.join() && w.finished());
    }

    #[test]
    fn cancelling_twice_counts_once_and_finish_tells() {
        let w = Word::default();
        assert_eq!(w.signal(Signal::Cancel), Signalled::Noted);
        assert_eq!(w.signal(Signal::Cancel), Signalled::Again);
        assert!(w.cancelled() && w.finish().cancelled);
    }
}
