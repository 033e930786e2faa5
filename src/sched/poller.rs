//! Who waits for which file descriptor. The only place that names epoll.
//!
//! A descriptor is armed for one event at a time (`EPOLLONESHOT`), for the union of what its waits are for; so there is
//! one system call per wait, and none for an event that nobody waits for. Waits are found by the number of the
//! descriptor. The kernel forgets a descriptor that is closed, silently; that its number means another file now is seen
//! when it is armed again, and then the waits that are left of the former one are told that it is closed. So that they
//! need not wait for that, [`close`] tells them.
//!
//! An idle worker waits in here instead of on its futex ([`Poller::take`]; one at a time). While all workers are busy, the
//! ticker looks in, and so does each worker once in a while.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use smallvec::SmallVec;

use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sys::sync::{Mutex, MutexGuard, PoisonError};

/// Events taken from the kernel at a time.
const EVENTS: usize = 128;
/// What stands for the poller's own descriptor.
const OURS: u64 = u64::MAX;

/// What is waited for.
pub const READABLE: u32 = 1;
pub const WRITABLE: u32 = 2;

/// Who waits for a descriptor.
pub trait Ready: Send + Sync {
    /// It can be read or written, or has an error that a read or write will tell. Called with no lock held.
    fn ready(&self, events: u32);
    /// It was closed.
    fn closed(&self);
}

/// One descriptor, once it was waited for.
#[derive(Default)]
struct Watch {
    waits: SmallVec<[Wait; 1]>,
}

struct Wait {
    key: u64,
    events: u32,
    who: Arc<dyn Ready>,
}

/// Why there is no wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not open, or nothing that can be waited for (a file, a directory).
    BadDescriptor,
    /// The kernel or the user's limits allow no more.
    Limit,
}

/// See the head of this file.
pub struct Poller {
    epoll: OwnedFd,
    /// Ends a wait that is under way; or tells who looks at `epoll` from outside.
    wake: OwnedFd,
    watches: Mutex<Watches>,
    /// How many waits there are. Written under the lock.
    waits: AtomicUsize,
    /// A worker waits in here.
    taken: AtomicBool,
}

#[derive(Default)]
struct Watches {
    by_fd: HashMap<RawFd, Watch>,
    last_key: u64,
}

/// All pollers: who closes a descriptor may be nobody's fiber.
static ALL: std::sync::Mutex<Vec<Weak<Poller>>> = std::sync::Mutex::new(Vec::new());

/// Events that were taken from the kernel.
#[derive(Default)]
pub struct Events(SmallVec<[epoll::Event; 8]>);

impl Poller {
    /// A poller that waits for nothing.
    pub fn new() -> io::Result<Arc<Poller>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(OURS), epoll::EventFlags::IN)?;
        let poller = Arc::new(Poller {
            epoll,
            wake,
            watches: Mutex::default(),
            waits: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|poller| poller.strong_count() > 0);
        all.push(Arc::downgrade(&poller));
        Ok(poller)
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor that is readable while there are events, or a [`Poller::wake`] that nobody has seen.
    pub fn descriptor(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Does anybody wait for a descriptor?
    #[inline]
    pub fn is_used(&self) -> bool {
        self.waits.load(Ordering::Relaxed) > 0
    }

    /// Is a worker in here?
    #[inline]
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes the poller, to wait in it; false if another one has it.
    #[must_use]
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    /// Gives it back.
    pub fn give_back(&self) {
        self.taken.store(false, Ordering::SeqCst);
    }

    /// Waits for a descriptor, until `who` is told or [`Poller::remove`] is called with the key. It is told once.
    pub fn add(&self, fd: RawFd, events: u32, who: Arc<dyn Ready>) -> Result<u64, Refused> {
        if fd < 0 {
            return Err(Refused::BadDescriptor);
        }
        let mut closed = SmallVec::<[Wait; 1]>::new();
        let added = {
            let mut watches = self.lock();
            watches.last_key += 1;
            let key = watches.last_key;
            let known = watches.by_fd.get(&fd);
            let others = known.map_or(0, |watch| union(&watch.waits));
            let armed = match known {
                Some(_) => match self.arm(fd, others | events, false) {
                    // It was closed, and is another one now.
                    Err(Errno::NOENT) => {
                        closed = std::mem::take(&mut watches.by_fd.entry(fd).or_default().waits);
                        self.arm(fd, events, true)
                    }
                    armed => armed,
                },
                // Known to the kernel, but not to us: it was forgotten and not closed.
                None => match self.arm(fd, events, true) {
                    Err(Errno::EXIST) => self.arm(fd, events, false),
                    armed => armed,
                },
            };
            match armed {
                Ok(()) => watches.by_fd.entry(fd).or_default().waits.push(Wait { key, events, who }),
                // What others wait for was closed: its number means nothing now, or a file.
                Err(Errno::BADF | Errno::PERM) => {
                    closed.extend(watches.by_fd.remove(&fd).into_iter().flat_map(|watch| watch.waits));
                }
                Err(_) => {}
            }
            // SeqCst: who is about to wait without the poller looks at this after it has said so (`Idle::sleep`).
            self.waits.fetch_sub(closed.len(), Ordering::SeqCst);
            self.waits.fetch_add(usize::from(armed.is_ok()), Ordering::SeqCst);
            armed.map(|()| key)
        };
        closed.iter().for_each(|wait| wait.who.closed());
        added.map_err(|e| match e {
            Errno::NOSPC | Errno::NOMEM => Refused::Limit,
            _ => Refused::BadDescriptor,
        })
    }

    /// Waits no more; does nothing if who waited was told.
    pub fn remove(&self, fd: RawFd, key: u64) {
        let mut watches = self.lock();
        let Some(watch) = watches.by_fd.get_mut(&fd) else { return };
        let Some(at) = watch.waits.iter().position(|wait| wait.key == key) else { return };
        let wait = watch.waits.swap_remove(at);
        self.waits.fetch_sub(1, Ordering::SeqCst);
        if watch.waits.is_empty() {
            // Nobody shall be woken for it.
            watches.by_fd.remove(&fd);
            // SAFETY: only the number is used; of one that is closed the kernel knows nothing.
            let _ = epoll::delete(&self.epoll, unsafe { BorrowedFd::borrow_raw(fd) });
        }
        drop(watches);
        drop(wait);
    }

    fn arm(&self, fd: RawFd, events: u32, new: bool) -> Result<(), Errno> {
        let mut flags = epoll::EventFlags::ONESHOT;
        flags.set(epoll::EventFlags::IN | epoll::EventFlags::RDHUP, events & READABLE != 0);
        flags.set(epoll::EventFlags::OUT, events & WRITABLE != 0);
        let data = epoll::EventData::new_u64(fd as u64);
        // SAFETY: only the number is used, and the kernel says if it is none.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if new { epoll::add(&self.epoll, fd, data, flags) } else { epoll::modify(&self.epoll, fd, data, flags) }
    }

    /// Ends the wait that is under way, or the next one.
    pub fn wake(&self) {
        // It fails only if 2^64 wakes were not seen.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes a wake back that nobody has seen.
    pub fn unwake(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Takes what has happened; waits for it if told so.
    pub fn poll(&self, wait: bool) -> Events {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if wait { None } else { Some(&now) };
        match epoll::wait(&self.epoll, &mut buffer, timeout) {
            Ok((events, _)) => {
                let mut all = SmallVec::new();
                for event in events.iter() {
                    match event.data.u64() {
                        // To who looks in passing it says nothing: it is for who sleeps here, or watches from outside.
                        OURS if wait => self.unwake(),
                        OURS => {}
                        _ => all.push(*event),
                    }
                }
                Events(all)
            }
            // A signal; it is asked again.
            Err(Errno::INTR) => Events::default(),
            Err(_) => {
                self.give_up();
                Events::default()
            }
        }
    }

    /// The kernel does not know the poller: somebody has closed its descriptor. Nobody shall wait for ever.
    #[cold]
    fn give_up(&self) {
        let all = {
            let mut watches = self.lock();
            self.waits.store(0, Ordering::SeqCst);
            std::mem::take(&mut watches.by_fd)
        };
        all.values().flat_map(|watch| &watch.waits).for_each(|wait| wait.who.closed());
    }

    /// Tells those who waited for these events.
    pub fn tell(&self, events: Events) {
        let mut told = SmallVec::<[(Wait, u32); 8]>::new();
        {
            let mut watches = self.lock();
            for event in events.0 {
                let fd = event.data.u64() as RawFd;
                let Some(watch) = watches.by_fd.get_mut(&fd) else { continue };
                let happened = happened(event.flags);
                let mut left = SmallVec::new();
                for wait in watch.waits.drain(..) {
                    match wait.events & happened {
                        0 => left.push(wait),
                        ready => told.push((wait, ready)),
                    }
                }
                watch.waits = left;
                let left = union(&watch.waits);
                if left != 0 && self.arm(fd, left, false).is_err() {
                    // It was closed just now; what is left is told so.
                    told.extend(watch.waits.drain(..).map(|wait| (wait, 0)));
                }
            }
            self.waits.fetch_sub(told.len(), Ordering::SeqCst);
        }
        for (wait, ready) in told {
            if ready == 0 { wait.who.closed() } else { wait.who.ready(ready) }
        }
    }
}

impl Events {
    /// Did nothing happen?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Closes a descriptor, and tells those who wait for it. All under the locks: nobody can begin to wait for it in between,
/// and whoever gets its number next finds none of this.
pub fn close(fd: RawFd, close: impl FnOnce()) {
    let all: Vec<_> = {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    };
    let mut waits = Vec::new();
    {
        // In the order of the list, so that two who close never wait for each other.
        let mut locked: Vec<_> = all.iter().map(|poller| (poller, poller.lock())).collect();
        for (poller, watches) in &mut locked {
            let Some(watch) = watches.by_fd.remove(&fd) else { continue };
            // SAFETY: only the number is used. It stays there if its file is open by another descriptor too.
            let _ = epoll::delete(&poller.epoll, unsafe { BorrowedFd::borrow_raw(fd) });
            poller.waits.fetch_sub(watch.waits.len(), Ordering::SeqCst);
            waits.extend(watch.waits);
        }
        close();
    }
    waits.iter().for_each(|wait| wait.who.closed());
}

fn union(waits: &[Wait]) -> u32 {
    waits.iter().fold(0, |all, wait| all | wait.events)
}

/// An error or a hang-up is for both sides to see.
fn happened(flags: epoll::EventFlags) -> u32 {
    use epoll::EventFlags as F;
    let any = |these| if flags.intersects(these) { u32::MAX } else { 0 };
    READABLE & any(F::IN | F::RDHUP | F::HUP | F::ERR) | WRITABLE & any(F::OUT | F::HUP | F::ERR)
}
