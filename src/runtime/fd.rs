//! Waiting until a file descriptor can be read or written.

use std::mem::MaybeUninit;
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

/// A descriptor, what it is waited for, and what it is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub fd: RawFd,
    pub events: u32,
    pub ready: Readiness,
}

/// What is known of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing has happened.
    Not,
    /// For these events.
    Ready(u32),
    /// It was closed meanwhile.
    Closed,
    /// It is not open, or of a kind that nobody can wait for.
    Failed,
}

/// Waits until `fd` is ready for one of `events`; also says for which.
pub fn wait_fd(fd: RawFd, events: u32, deadline: Option<u64>) -> (Status, u32) {
    if events == 0 || events & !(READABLE | WRITABLE) != 0 {
        return (Status::Invalid, 0);
    }
    if Waiter::cancelled() {
        return (Status::Cancelled, 0);
    }
    let mut wanted = [Wanted { fd, events, ready: Readiness::Not }];
    let due = deadline.is_some_and(|deadline| clock::now() >= deadline);
    let status = match current() {
        Some(_) if !due => wait_any(&mut wanted, deadline),
        None if on_worker() => Status::NotAllowed,
        _ => block(&mut wanted, deadline),
    };
    match wanted[0].ready {
        _ if status != Status::Ok => (status, 0),
        Readiness::Ready(events) => (Status::Ok, events),
        Readiness::Closed => (Status::Closed, 0),
        Readiness::Failed | Readiness::Not => (Status::Failed, 0),
    }
}

/// Lets the calling fiber wait until something is known of one of these: then `Status::Ok`.
pub fn wait_any(wanted: &mut [Wanted], deadline: Option<u64>) -> Status {
    let (waiter, fiber) = match (Waiter::here(deadline), current()) {
        (Ok(waiter), Some(fiber)) => (waiter, fiber),
        (Err(Status::Timeout), _) => return block(wanted, Some(0)),
        (Err(status), _) => return status,
        (_, None) => return Status::NotFiber,
    };
    let scheduler = &fiber.shared().scheduler;
    let mut waits = SmallVec::<[(usize, Arc<Wait>, u64); 1]>::new();
    let (mut status, mut known) = (Status::Ok, false);
    for (at, wanted) in wanted.iter_mut().enumerate() {
        let wait = Arc::new(Wait { events: AtomicU32::new(0), waker: waiter.waker() });
        match scheduler.wait_fd(wanted.fd, wanted.events, Arc::clone(&wait) as Arc<dyn Ready>) {
            Ok(key) => waits.push((at, wait, key)),
            Err(Refused::BadDescriptor) => (wanted.ready, known) = (Readiness::Failed, true),
            Err(Refused::Limit) => status = Status::Limit,
        }
    }
    let told = |wait: &Wait| wait.events.load(Ordering::Acquire);
    if status == Status::Ok && !known {
        status = waiter.wait(deadline, || waits.iter().any(|(_, wait, _)| told(wait) != 0));
    }
    for (at, wait, key) in &waits {
        wanted[*at].ready = match told(wait) {
            0 => Readiness::Not,
            CLOSED => Readiness::Closed,
            events => Readiness::Ready(events),
        };
        if wanted[*at].ready == Readiness::Not {
            scheduler.wait_fd_no_more(wanted[*at].fd, *key);
        }
    }
    status
}

/// The same for who can't be suspended, and blocks the thread; and for a look, with the deadline 0.
pub fn block(wanted: &mut [Wanted], deadline: Option<u64>) -> Status {
    let bits = [(READABLE, libc::POLLIN | libc::POLLRDHUP), (WRITABLE, libc::POLLOUT)];
    let entry = |wanted: &Wanted| {
        let asked = bits.iter().filter(|of| wanted.events & of.0 != 0);
        libc::pollfd { fd: wanted.fd, events: asked.fold(0, |all, of| all | of.1), revents: 0 }
    };
    let mut entries: SmallVec<[_; 4]> = wanted.iter().map(entry).collect();
    let mut known = false;
    for wanted in &mut *wanted {
        if !can_be_waited_for(wanted.fd) {
            (wanted.ready, known) = (Readiness::Failed, true);
        }
    }
    loop {
        // If something is known already this only looks at the others.
        let left = deadline.map(|deadline| deadline.saturating_sub(clock::now()));
        let left = if known { Some(0) } else { left };
        let timeout = left.map(|left| libc::timespec {
            tv_sec: (left / 1_000_000_000) as libc::time_t,
            tv_nsec: (left % 1_000_000_000) as libc::c_long,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| &raw const *timeout);
        // SAFETY: as many entries as it is told; the timeout is null or lives.
        let n = unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout, std::ptr::null()) };
        if n < 0 {
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => continue,
                _ => return Status::Limit,
            }
        }
        for (wanted, entry) in wanted.iter_mut().zip(&entries).filter(|(wanted, _)| wanted.ready == Readiness::Not) {
            let both = libc::POLLERR | libc::POLLHUP;
            let ready = bits.iter().filter(|of| wanted.events & of.0 != 0 && entry.revents & (of.1 | both) != 0);
            match ready.fold(0, |all, of| all | of.0) {
                _ if entry.revents & libc::POLLNVAL != 0 => wanted.ready = Readiness::Failed,
                0 => continue,
                events => wanted.ready = Readiness::Ready(events),
            }
            known = true;
        }
        if known {
            return Status::Ok;
        }
        if left == Some(0) {
            return Status::Timeout;
        }
    }
}

/// Is it open, and no file or directory, which are always ready?
fn can_be_waited_for(fd: RawFd) -> bool {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: it is written if the call succeeds, and only read then.
    unsafe {
        libc::fstat(fd, stat.as_mut_ptr()) == 0
            && !matches!(stat.assume_init().st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
    }
}
