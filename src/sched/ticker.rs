//! The thread that ticks while somebody waits for a turn, and fires timers.

use super::{Runnable, Scheduler};
use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sys::{barrier, clock, futex, sync};

/// The ticker waits for its next tick or timer.
const WAITS: u32 = 0;
/// The ticker sleeps until a timer is due: nobody waits for a turn.
const ASLEEP: u32 = 1;
/// Something has changed that the ticker must look at.
const KICKED: u32 = 2;

/// How often guests are made to look up while somebody urges, and how often the ticker looks for
/// demand before it sleeps, in nanoseconds; or once a quantum, if that is shorter.
const LOOK: u64 = 1_000_000;
/// Looks without demand before the ticker sleeps. Waking it costs a system call, so it must not
/// fall asleep between two moments of demand of a busy program.
const LINGER: usize = sync::capacity(64, 1);
/// How long nothing must have happened before idle memory is given back.
const TRIM_AFTER: u64 = 1_000_000_000;

/// The ticker's shared words.
pub struct Ticker {
    word: AtomicU32,
    ticks: AtomicU64,
    quantum: u64,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn new(quantum: u64) -> Ticker {
        Ticker {
            word: AtomicU32::new(WAITS),
            ticks: AtomicU64::new(0),
            quantum,
            stop: AtomicBool::new(false),
        }
    }

    /// Ticks so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Wakes the ticker if it sleeps. The caller has passed the light side of a barrier, or a `SeqCst`
    /// fence, since it made its demand visible.
    #[inline]
    pub(super) fn demand(&self) {
        if self.word.load(Ordering::Relaxed) == ASLEEP {
            self.kick();
        }
    }

    /// Makes the ticker look at everything anew: a timer became the earliest, or it shall stop.
    #[cold]
    pub fn kick(&self) {
        if self.word.swap(KICKED, Ordering::SeqCst) != KICKED {
            futex::wake(&self.word, 1);
        }
    }

    /// A tick, made by hand.
    #[cfg(test)]
    pub fn advance(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends [`Scheduler::run_ticker`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.kick();
    }
}

impl<R: Runnable> Scheduler<R> {
    /// Ticks and fires timers until [`Ticker::stop`]. `on_tick` makes running guests look whether
    /// their quantum is over; `on_idle` is told when nothing has happened for a while.
    pub fn run_ticker(&self, on_tick: impl Fn(), on_idle: impl Fn()) {
        let t = &self.ticker;
        // The default slack lets the kernel be 50 µs late, a whole quantum of the shortest kind.
        // SAFETY: plain integers.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        let look = t.quantum.min(LOOK);
        let mut next_tick = None;
        let mut quiet = 0;
        let mut idle_told = false;
        while !t.stop.load(Ordering::SeqCst) {
            // From here on everything is looked at, so a kick up to now is dealt with.
            t.word.swap(WAITS, Ordering::SeqCst);
            if t.stop.load(Ordering::SeqCst) {
                break;
            }
            let now = clock::now();
            self.timers.fire(now);
            let polls = self.must_poll();
            if polls {
                self.look_for_events();
            }
            let timer = self.timers.earliest();
            let (waits, urged) = (self.somebody_waits(), self.is_urged());
            if !waits {
                next_tick = None;
            }
            if waits || urged || polls {
                (quiet, idle_told) = (0, false);
                // Somebody may urge without a kick (`urge_soon`).
                let mut until = now.saturating_add(look);
                if waits {
                    let mut due = *next_tick.get_or_insert(now.saturating_add(t.quantum));
                    if now >= due {
                        t.ticks.store(t.count() + 1, Ordering::Relaxed);
                        on_tick();
                        // A strand may sit in the slot of a worker that runs on and on.
                        if self.idle.any_asleep() {
                            self.announce();
                        }
                        due = now.saturating_add(t.quantum);
                        next_tick = Some(due);
                    }
                    until = until.min(due);
                }
                if urged {
                    // Nobody's slice is over, but guests must look up.
                    on_tick();
                }
                futex::wait(&t.word, WAITS, Some(timer.map_or(until, |at| at.min(until))));
                continue;
            }
            quiet += 1;
            if quiet < LINGER && self.idle.workers().1 > 0 {
                let until = now.saturating_add(look);
                futex::wait(&t.word, WAITS, Some(timer.map_or(until, |at| at.min(until))));
                continue;
            }
            if t.word.compare_exchange(WAITS, ASLEEP, Ordering::SeqCst, Ordering::Relaxed).is_err()
            {
                continue;
            }
            // Partner: the light side in `Scheduler::active`; and the lock that adds timers, whose
            // caller kicks whenever the earliest changes.
            barrier::heavy();
            if self.demand() || self.timers.earliest() != timer {
                continue;
            }
            let trim = (!idle_told).then(|| now + TRIM_AFTER);
            futex::wait(&t.word, ASLEEP, [timer, trim].into_iter().flatten().min());
            if !idle_told && clock::now() >= now + TRIM_AFTER {
                idle_told = true;
                on_idle();
            }
        }
    }
}
