//! The bare switch, without Wasm and without a scheduler: nobody on this machine does better.

use crate::measure::{Duel, Scale, now};
use corosensei::stack::StackPointer;
use corosensei::{Coroutine, Yielder};
use std::ptr::null_mut;

const STACK: usize = 64 * 1024;
const GUARD: usize = 4096;

/// A mapping with a guard at its low end.
struct Stack(*mut u8);

impl Stack {
    fn new() -> Stack {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping, of which the lowest page then faults.
        unsafe {
            let base = libc::mmap(
                null_mut(),
                GUARD + STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            );
            assert!(base != libc::MAP_FAILED, "no memory for a stack");
            assert_eq!(libc::mprotect(base, GUARD, libc::PROT_NONE), 0);
            Stack(base.cast())
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing runs on it any more.
        unsafe { libc::munmap(self.0.cast(), GUARD + STACK) };
    }
}

// SAFETY: the mapping lives as long as the `Stack`, has a guard, and both ends are on page bounds.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0 as usize + GUARD + STACK).expect("no mapping ends at zero")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0 as usize).expect("no mapping is at zero")
    }
}

/// Nanoseconds per resume with its suspend, each stack in turn.
pub fn switches(scale: Scale, stacks: usize) -> Duel {
    let laps = scale.of(10_000_000) as usize / stacks;
    Duel::floor("corosensei alone", move || {
        let coroutine = |_| {
            Coroutine::with_stack(Stack::new(), move |yielder: &Yielder<(), ()>, (): ()| {
                // One lap more, which warms up the stack.
                for _ in 0..=laps {
                    yielder.suspend(());
                }
            })
        };
        let mut coroutines: Vec<_> = (0..stacks).map(coroutine).collect();
        let mut lap = || {
            for coroutine in &mut coroutines {
                coroutine.resume(());
            }
        };
        lap();
        let start = now();
        for _ in 0..laps {
            lap();
        }
        let time = (now() - start) as f64;
        // The last lap ends them all.
        lap();
        assert!(coroutines.iter().all(|coroutine| coroutine.done()), "a coroutine did not end");
        time / (stacks * laps) as f64
    })
}
