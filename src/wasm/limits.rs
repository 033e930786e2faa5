//! What a fiber, or a store with all its fibers, may use: time on the clock, and time on a processor.
//!
//! Who has used it up is stopped as a cancelled fiber is, and its end says why. Time on a processor is metered from switch
//! to switch, for those who have a budget. A guest that runs on and on is asked
//! at its epoch checks, and the ticker makes it look up once a millisecond as long as one with a budget runs.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};

use super::fiber::Fiber;
use super::strand::Strand;
use crate::sched::timers::{Expire, Key};
use crate::sys::clock;

/// Why a fiber is to end before its time. The first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// Somebody has cancelled it.
    Cancel = 1,
    /// Its deadline, or that of its store, has passed.
    Deadline = 2,
    /// It, or its store, has had all its time on a processor.
    Budget = 3,
}

impl Stop {
    /// The reason with this number.
    pub fn of(number: u8) -> Option<Stop> {
        [Stop::Cancel, Stop::Deadline, Stop::Budget].into_iter().find(|stop| *stop as u8 == number)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Cancel => "the fiber was cancelled",
            Stop::Deadline => "the deadline has passed",
            Stop::Budget => "the budget of time on a processor is used up",
        })
    }
}

impl std::error::Error for Stop {}

/// No budget.
const UNLIMITED: u64 = u64::MAX;

/// Time on a processor, in nanoseconds. Written by the worker that runs what is metered, read by anybody.
pub struct Meter {
    budget: AtomicU64,
    /// Odd while the other two change.
    sequence: AtomicU32,
    used: AtomicU64,
    /// When it went on; 0 while it does not run.
    since: AtomicU64,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter::new(None)
    }
}

impl Meter {
    /// Nothing is used yet.
    pub fn new(budget: Option<u64>) -> Meter {
        Meter {
            budget: AtomicU64::new(budget.unwrap_or(UNLIMITED)),
            sequence: AtomicU32::new(0),
            used: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }
    }

    /// Sets what may be used in all.
    pub fn set_budget(&self, budget: u64) {
        self.budget.store(budget, Ordering::Relaxed);
    }

    /// Is there an end to it?
    pub fn is_limited(&self) -> bool {
        self.budget.load(Ordering::Relaxed) != UNLIMITED
    }

    /// Nobody can read it until [`Meter::write`].
    fn open(&self) {
        // One writer. The fence keeps what is written after the odd number.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
    }

    fn write(&self, used: u64, since: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// It goes on running.
    pub fn begin(&self, now: u64) {
        self.open();
        self.write(self.used.load(Ordering::Relaxed), now);
    }

    /// Does it run?
    pub fn runs(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// It stops running, and so does another one, at the same moment. The clock is looked at when nobody can read them any
    /// more: else one who reads could be told more than there is in the end.
    pub fn end(&self, other: Option<&Meter>) {
        let running = [Some(self), other].map(|meter| meter.filter(|meter| meter.runs()));
        running.into_iter().flatten().for_each(Meter::open);
        fence(Ordering::SeqCst);
        let now = clock::now();
        for meter in running.into_iter().flatten() {
            let (used, since) = (meter.used.load(Ordering::Relaxed), meter.since.load(Ordering::Relaxed));
            meter.write(used + now.saturating_sub(since), 0);
        }
    }

    /// What was used up to now.
    pub fn used(&self) -> u64 {
        loop {
            let sequence = self.sequence.load(Ordering::Acquire);
            let (used, since) = (self.used.load(Ordering::Relaxed), self.since.load(Ordering::Relaxed));
            let now = clock::now();
            fence(Ordering::Acquire);
            if sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence {
                return used + if since == 0 { 0 } else { now.saturating_sub(since) };
            }
            std::hint::spin_loop();
        }
    }

    /// Is all of it used?
    pub fn is_used_up(&self) -> bool {
        self.is_limited() && self.used() >= self.budget.load(Ordering::Relaxed)
    }
}

/// Whether the turn of a strand's fiber is metered, and the ticker makes it look up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metering {
    #[default]
    Off,
    On,
    Watched,
}

impl Strand {
    /// Begins to meter the turn of `fiber`, or to watch it, if that is to be and is not done yet.
    #[cold]
    pub(super) fn meter(&self, fiber: &Fiber) {
        let (now, own) = (clock::now(), self.is_metered.load(Ordering::Relaxed));
        if self.metering.get() == Metering::Off {
            if own {
                self.meter.begin(now);
            }
            fiber.meter.as_deref().inspect(|meter| meter.begin(now));
            self.metering.set(Metering::On);
        } else if own && !self.meter.runs() {
            self.meter.begin(now);
        }
        let limited = self.meter.is_limited() || fiber.meter.as_deref().is_some_and(Meter::is_limited);
        if limited && self.metering.get() == Metering::On {
            self.metering.set(Metering::Watched);
            self.shared.scheduler.urge_soon();
        }
        // It may have short turns, between two looks of the ticker.
        if limited && self.is_used_up(fiber) {
            fiber.stop(Stop::Budget);
        }
    }

    /// The turn ends.
    #[cold]
    pub(super) fn end_metering(&self, fiber: &Fiber) {
        self.meter.end(fiber.meter.as_deref());
        if self.metering.replace(Metering::Off) == Metering::Watched {
            self.shared.scheduler.unurge();
        }
    }

    /// Is anything of the strand metered?
    #[inline]
    pub(super) fn has_meters(&self) -> bool {
        self.metered.load(Ordering::Relaxed) > 0
    }

    /// Has `fiber`, which runs, had all its time?
    #[inline]
    pub(super) fn is_used_up(&self, fiber: &Fiber) -> bool {
        self.has_meters()
            && (self.meter.is_used_up() || fiber.meter.as_deref().is_some_and(Meter::is_used_up))
    }
}

/// The deadline of a fiber, as a timer.
pub struct FiberDeadline(pub Weak<Fiber>);

impl Expire for FiberDeadline {
    fn expire(&self, _: Key) {
        self.0.upgrade().inspect(|fiber| _ = fiber.stop(Stop::Deadline));
    }
}

/// The deadline of a store.
pub struct StoreDeadline(pub Weak<Strand>);

impl Expire for StoreDeadline {
    fn expire(&self, _: Key) {
        self.0.upgrade().inspect(|strand: &Arc<Strand>| strand.stop_for_ever(Stop::Deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_what_lies_between_and_knows_its_end() {
        let meter = Meter::new(Some(1_000_000));
        assert!(meter.is_limited() && !meter.is_used_up());
        meter.end(None);
        assert_eq!(meter.used(), 0, "it did not run");
        let began = clock::now();
        meter.begin(began - 600_000);
        meter.end(None);
        let used = meter.used();
        assert!(used >= 600_000 && used <= 600_000 + clock::now() - began);
        assert_eq!(meter.used(), used, "it does not run");
        meter.begin(clock::now() - 400_000);
        meter.end(None);
        assert!(meter.is_used_up());
        meter.set_budget(u64::MAX - 1);
        assert!(!meter.is_used_up());
        meter.set_budget(meter.used() + 1_000);
        let now = clock::now();
        meter.begin(now);
        while !meter.is_used_up() {}
        assert!(!Meter::default().is_used_up());
    }
}
