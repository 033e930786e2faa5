//! Clocks, in nanoseconds.

/// `CLOCK_MONOTONIC`, the clock of every deadline in `bop.h`.
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// `CLOCK_REALTIME`.
pub fn wall() -> u64 {
    read(libc::CLOCK_REALTIME).unwrap_or(0)
}

/// The clock that counts the CPU time of the calling thread. Other threads may [`read`] it for as
/// long as this one lives.
pub fn this_thread_cpu() -> Option<libc::clockid_t> {
    let mut id = 0;
    // SAFETY: `pthread_self` is always valid, and `id` is written before it is read.
    (unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut id) } == 0).then_some(id)
}

/// Reads any clock; `None` when it does not exist (any more).
pub fn read(id: libc::clockid_t) -> Option<u64> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place to write to.
    let ok = unsafe { libc::clock_gettime(id, &mut t) } == 0;
    ok.then(|| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Blocks the thread until `deadline` (`CLOCK_MONOTONIC`).
pub fn sleep_until(deadline: u64) {
    let at = libc::timespec {
        tv_sec: (deadline / 1_000_000_000) as libc::time_t,
        tv_nsec: (deadline % 1_000_000_000) as libc::c_long,
    };
    let clock = libc::CLOCK_MONOTONIC;
    // SAFETY: `at` outlives the call; an interrupted sleep is taken up again.
    while unsafe { libc::clock_nanosleep(clock, libc::TIMER_ABSTIME, &at, std::ptr::null_mut()) }
        == libc::EINTR
    {}
}
