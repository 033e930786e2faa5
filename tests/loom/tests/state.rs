//! A fiber's state word (`fiber::state`) between its worker and those who signal it.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use models::state::{Finish, Interest, Signal, Signalled, Word};
use models::model;

const SIGNALS: [Signal; 3] = [Signal::Wake, Signal::Permit, Signal::Cancel];
const INTERESTS: [Interest; 3] = [Interest::Cancel, Interest::Permit, Interest::Nothing];

/// Does this wake who is interested in that?
fn wakes(signal: Signal, interest: Interest) -> bool {
    match signal {
        Signal::Wake => true,
        Signal::Permit => interest == Interest::Permit,
        Signal::Cancel => interest != Interest::Nothing,
    }
}

/// A fiber, and what a signaller has done before it signals.
#[derive(Default)]
struct Fiber {
    word: Word,
    /// What belongs to whoever runs the fiber: its stack. loom sees if two have it.
    turns: UnsafeCell<Vec<Turn>>,
    given: [AtomicBool; 2],
}

/// What a fiber finds when it is run again.
struct Turn {
    /// By somebody who woke it.
    woken: bool,
    signals: Vec<Signal>,
    given: [bool; 2],
}

impl Fiber {
    fn give(&self, who: usize, signal: Signal) -> bool {
        self.given[who].store(true, Relaxed);
        let signalled = self.word.signal(signal);
        assert_ne!(signalled, Signalled::Finished);
        let woken = signalled == Signalled::Enqueue;
        if woken {
            self.run(Some(signal));
        }
        woken
    }

    /// Runs it; only who owns it calls this. A wake-up that wakes leaves no bit.
    fn run(&self, woken_by: Option<Signal>) {
        let mut signals = Vec::from_iter(woken_by.filter(|&signal| signal == Signal::Wake));
        signals.extend([Signal::Wake, Signal::Permit].into_iter().filter(|&signal| self.word.take(signal)));
        signals.extend(self.word.cancelled().then_some(Signal::Cancel));
        let given = [0, 1].map(|who| self.given[who].load(Relaxed));
        let turn = Turn { woken: woken_by.is_some(), signals, given };
        // SAFETY: the owner's; loom checks it.
        self.turns.with_mut(|turns| unsafe { &mut *turns }.push(turn));
    }
}

/// One park, with two signals that come at any time.
fn park_between(signals: [Signal; 2], interest: Interest) {
    model(move || {
        let fiber = Arc::new(Fiber::default());
        let signallers = [0, 1].map(|who| {
            let fiber = Arc::clone(&fiber);
            thread::spawn(move || fiber.give(who, signals[who]))
        });
        fiber.word.interest(interest);
        // SAFETY: it runs here. What it does before it parks, and what whoever wakes it does, must not meet.
        fiber.turns.with_mut(|turns| unsafe { &mut *turns }.clear());
        let parked = fiber.word.commit_park();
        if !parked {
            fiber.run(None);
        }
        let wakers = signallers.map(|s| s.join().unwrap()).into_iter().filter(|&woke| woke).count();
        let awaited = signals.iter().any(|&signal| wakes(signal, interest));
        assert_eq!(wakers, usize::from(parked && awaited), "one who wakes, once");
        assert_eq!(fiber.word.parked(), parked && !awaited);

        // Nothing is lost, and no wake-up is seen twice: what was not seen in that turn is still there.
        if !fiber.word.parked() {
            fiber.run(None);
        }
        // SAFETY: all other threads have ended.
        fiber.turns.with(|turns| {
            let turns = unsafe { &*turns };
            assert_eq!(turns.iter().filter(|turn| turn.woken).count(), wakers);
            for signal in signals {
                assert!(!awaited || turns.iter().any(|turn| turn.signals.contains(&signal)), "{signal:?}");
            }
            let wakes_seen = turns.iter().flat_map(|turn| &turn.signals).filter(|&&s| s == Signal::Wake).count();
            assert!(wakes_seen <= signals.iter().filter(|&&s| s == Signal::Wake).count());
            // Who sees a signal sees what one who gave it had done before; and the last who sees it, what all had.
            for turn in turns {
                for signal in &turn.signals {
                    assert!((0..2).any(|who| signals[who] == *signal && turn.given[who]));
                }
            }
            for signal in [Signal::Wake, Signal::Permit] {
                let seen = turns.iter().rfind(|turn| turn.signals.contains(&signal));
                for (who, _) in signals.iter().enumerate().filter(|given| *given.1 == signal) {
                    assert!(seen.is_none_or(|turn| turn.given[who]), "{signal:?} of {who}");
                }
            }
        });
    });
}

#[test]
fn a_park_has_one_waker_and_no_signal_is_lost() {
    for interest in INTERESTS {
        for (i, &first) in SIGNALS.iter().enumerate() {
            SIGNALS[i..].iter().for_each(|&second| park_between([first, second], interest));
        }
    }
}

#[test]
fn who_is_told_that_it_has_finished_sees_its_result() {
    model(|| {
        let word = Arc::new(Word::default());
        let result = Arc::new(UnsafeCell::new(0));
        let joiners = [0, 1].map(|_| {
            let (word, result) = (Arc::clone(&word), Arc::clone(&result));
            thread::spawn(move || {
                let waits = word.join();
                if !waits {
                    // SAFETY: it has finished; loom checks it.
                    assert_eq!(result.with(|result| unsafe { *result }), 1);
                    assert!(word.finished());
                }
                waits
            })
        });
        // SAFETY: it has not finished, so nobody reads this.
        result.with_mut(|result| unsafe { *result = 1 });
        let Finish { joined, cancelled } = word.finish();
        let waiting = joiners.map(|joiner| joiner.join().unwrap());
        assert!(!cancelled);
        assert_eq!(waiting.contains(&true), joined, "who waits is told");
    });
}

#[test]
fn who_looks_and_finds_it_finished_sees_its_result() {
    model(|| {
        let shared = Arc::new((Word::default(), UnsafeCell::new(0)));
        let again = Arc::clone(&shared);
        let looks = thread::spawn(move || {
            if again.0.finished() {
                // SAFETY: as above.
                assert_eq!(again.1.with(|result| unsafe { *result }), 1);
            }
        });
        // SAFETY: as above.
        shared.1.with_mut(|result| unsafe { *result = 1 });
        shared.0.finish();
        looks.join().unwrap();
    });
}

#[test]
fn of_many_cancels_one_counts_and_the_end_tells_of_it() {
    model(|| {
        let word = Arc::new(Word::default());
        let cancels = [0, 1].map(|_| {
            let word = Arc::clone(&word);
            thread::spawn(move || word.signal(Signal::Cancel))
        });
        let cancelled = word.finish().cancelled;
        let answers = cancels.map(|cancel| cancel.join().unwrap());
        let count = |answer| answers.iter().filter(|&&a| a == answer).count();
        assert_eq!(count(Signalled::Noted), usize::from(cancelled));
        assert_eq!(count(Signalled::Enqueue), 0);
        assert!(cancelled || count(Signalled::Finished) == 2);
        assert_eq!(word.cancelled(), cancelled);
    });
}

/// What it is interested in changes while the signals come: the bits of both are in one word.
#[test]
fn a_change_of_interest_loses_no_signal() {
    model(|| {
        let word = Arc::new(Word::default());
        let signallers = [Signal::Permit, Signal::Cancel].map(|signal| {
            let word = Arc::clone(&word);
            thread::spawn(move || word.signal(signal))
        });
        word.interest(Interest::Nothing);
        word.interest(Interest::Permit);
        let parked = word.commit_park();
        let answers = signallers.map(|s| s.join().unwrap());
        assert_eq!(answers.contains(&Signalled::Enqueue), parked);
        assert!(!word.parked() && word.cancelled() && word.take(Signal::Permit));
    });
}
