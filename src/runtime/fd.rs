//! Waiting until a file descriptor can be read or written.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use super::on_worker;
use super::wait::{Status, Waiter};
use crate::sched::poller::{READABLE, Ready, Refused, WRITABLE};
use crate::sys::clock;
use crate::wasm::end::Wake;
use crate::wasm::fiber::current;

/// Among the events of a [`Wait`]: there will be none.
const CLOSED: u32 = 1 << 31;

/// A fiber that waits for a descriptor, and what it was told.
struct Wait {
    events: AtomicU32,
    waker: Arc<dyn Wake>,
}

impl Wait {
    fn tell(&self, events: u32) {
        // Release: the fiber sees what came before.
        self.events.store(events, Ordering::Release);
        self.waker.wake();
    }
}

impl Ready for Wait {
    fn ready(&self, events: u32) {
        self.tell(events);
    }

    fn closed(&self) {
        self.tell(CLOSED);
    }
}

/// A descriptor and what it is waited for; then, what it is ready for.
pub type Wanted = (RawFd, u32);

/// Waits until `fd` is ready for one of `events`; also says for which.
pub fn wait_fd(fd: RawFd, events: u32, deadline: Option<u64>) -> (Status, u32) {
    if events == 0 || events & !(READABLE | WRITABLE) != 0 {
        return (Status::Invalid, 0);
    }
    if Waiter::cancelled() {
        return (Status::Cancelled, 0);
    }
    if current().is_none() {
        return if on_worker() { (Status::NotAllowed, 0) } else { poll(fd, events, deadline) };
    }
    if deadline.is_some_and(|deadline| clock::now() >= deadline) {
        return poll(fd, events, Some(0));
    }
    let mut wanted = [(fd, events)];
    (wait_any(&mut wanted, deadline), wanted[0].1)
}

/// Lets the calling fiber wait until one of these is ready: `Status::Ok` if any is.
pub fn wait_any(wanted: &mut [Wanted], deadline: Option<u64>) -> Status {
    let (waiter, fiber) = match (Waiter::here(deadline), current()) {
        (Ok(waiter), Some(fiber)) => (waiter, fiber),
        (Err(status), _) => return status,
        (_, None) => return Status::NotFiber,
    };
    let scheduler = &fiber.shared().scheduler;
    let mut waits = SmallVec::<[(Arc<Wait>, u64); 1]>::new();
    let mut status = Status::Ok;
    for &(fd, events) in &*wanted {
        let wait = Arc::new(Wait { events: AtomicU32::new(0), waker: waiter.waker() });
        match scheduler.wait_fd(fd, events, Arc::clone(&wait) as Arc<dyn Ready>) {
            Ok(key) => waits.push((wait, key)),
            Err(Refused::BadDescriptor) => status = Status::Failed,
            Err(Refused::Limit) => status = Status::Limit,
        }
    }
    let told = |wait: &Wait| wait.events.load(Ordering::Acquire);
    if status == Status::Ok {
        status = waiter.wait(deadline, || waits.iter().any(|(wait, _)| told(wait) != 0));
    }
    let mut closed = true;
    for ((fd, events), (wait, key)) in wanted.iter_mut().zip(&waits) {
        *events = told(wait);
        if *events == 0 {
            scheduler.wait_fd_no_more(*fd, *key);
        }
        closed &= *events == CLOSED;
    }
    match status {
        Status::Ok if closed => Status::Closed,
        status => status,
    }
}

/// The same for a plain thread, which blocks; and for a fiber that does not wait (`deadline` 0).
fn poll(fd: RawFd, events: u32, deadline: Option<u64>) -> (Status, u32) {
    let (r, w) = (libc::POLLIN | libc::POLLRDHUP, libc::POLLOUT);
    let wanted = [(READABLE, r), (WRITABLE, w)].into_iter().filter(|of| events & of.0 != 0);
    let mut entry = libc::pollfd { fd, events: wanted.clone().fold(0, |all, of| all | of.1), revents: 0 };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_sub(clock::now()));
        let timeout = left.map(|left| libc::timespec {
            tv_sec: (left / 1_000_000_000) as libc::time_t,
            tv_nsec: (left % 1_000_000_000) as libc::c_long,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| &raw const *timeout);
        // SAFETY: one entry; the timeout is null or lives.
        let n = unsafe { libc::ppoll(&mut entry, 1, timeout, std::ptr::null()) };
        if n == 0 && left.is_some() {
            return (Status::Timeout, 0);
        }
        if n > 0 {
            let bad = entry.revents & libc::POLLNVAL != 0 || fd < 0;
            let both = libc::POLLERR | libc::POLLHUP;
            let ready = wanted.filter(|of| entry.revents & (of.1 | both) != 0);
            return if bad { (Status::Failed, 0) } else { (Status::Ok, ready.fold(0, |all, of| all | of.0)) };
        }
        if n < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return (Status::Limit, 0);
        }
    }
}
