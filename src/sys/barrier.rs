//! A fence whose two sides cost differently.
//!
//! Where two threads each write one place and then read the other's, both need a fence in between, so that at
//! least one of them sees what the other wrote. If one side does so at every turn and the other once in a while,
//! the rare one can pay for both: `membarrier` makes every running thread of the process pass a full
//! fence, so the frequent side need only keep the compiler from reordering.

use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
const PRIVATE_EXPEDITED: i32 = 1 << 3;

/// The kernel does it for us. Set before any thread uses either side, and never taken back.
static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

fn membarrier(command: i32) -> bool {
    // SAFETY: integers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Asks the kernel, once per process; without it both sides are plain fences.
pub fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let works = membarrier(REGISTER_PRIVATE_EXPEDITED) && membarrier(PRIVATE_EXPEDITED);
        ASYMMETRIC.store(works, Ordering::SeqCst);
    });
}

/// The frequent side: after its write, before its read. Partner: [`heavy`].
#[inline]
pub fn light() {
    if ASYMMETRIC.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side: after its write, before its read. Some microseconds, and an interruption of all cores that
/// run this process.
pub fn heavy() {
    fence(Ordering::SeqCst);
    if ASYMMETRIC.load(Ordering::Relaxed) {
        // It can't fail once it has worked, unless a seccomp filter came in between. The light sides, which have done
        // without a fence, can't be helped then, and memory would be corrupted.
        if !membarrier(PRIVATE_EXPEDITED) {
            eprintln!("bop: membarrier has stopped working: a filter of system calls must allow it");
            std::process::abort();
        }
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::sync::Barrier;

    /// Of two threads that write and then look, one sees the other, each time.
    #[test]
    fn one_of_two_sees_the_other() {
        register();
        let (a, b, start) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(2));
        let rounds = 20_000;
        let seen = std::thread::scope(|s| {
            let frequent = s.spawn(|| {
                let look = |round| {
                    start.wait();
                    a.store(round, Ordering::Relaxed);
                    light();
                    b.load(Ordering::Relaxed) == round
                };
                (1..=rounds).map(look).collect::<Vec<_>>()
            });
            let look = |round| {
                start.wait();
                b.store(round, Ordering::Relaxed);
                heavy();
                a.load(Ordering::Relaxed) == round
            };
            let rare: Vec<_> = (1..=rounds).map(look).collect();
            frequent.join().unwrap().into_iter().zip(rare).collect::<Vec<_>>()
        });
        assert!(seen.into_iter().all(|(frequent, rare)| frequent || rare));
    }
}
