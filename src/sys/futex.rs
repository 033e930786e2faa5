//! `futex(2)`: wait on, and wake, a 32-bit word of this process.

use std::sync::atomic::AtomicU32;

/// Sleeps while `*word == expected`, until woken or until `deadline` (`CLOCK_MONOTONIC`
/// nanoseconds). May return early for no reason: callers loop.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) {
    let at = deadline.map(|d| libc::timespec {
        tv_sec: (d / 1_000_000_000) as libc::time_t,
        tv_nsec: (d % 1_000_000_000) as libc::c_long,
    });
    let timeout = at.as_ref().map_or(std::ptr::null(), |t| t as *const libc::timespec);
    // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time, so an early return costs nothing.
    // SAFETY: `word` and `at` outlive the call; a failure (EAGAIN, EINTR, ETIMEDOUT) needs no care.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        );
    }
}

/// Wakes at most `n` threads that wait on `word`.
pub fn wake(word: &AtomicU32, n: i32) {
    // SAFETY: the kernel only uses the address as a key.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, n);
    }
}
