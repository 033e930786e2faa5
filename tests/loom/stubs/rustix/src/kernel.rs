//! The state of all descriptors of one execution, under one lock.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use loom::sync::{Condvar, Mutex, MutexGuard};
use traced::trail::note;

use crate::event::epoll::{Event, EventData, EventFlags};
use crate::io::Errno;

/// A descriptor that an epoll instance watches.
pub struct Armed {
    pub fd: RawFd,
    pub data: EventData,
    pub flags: EventFlags,
}

impl Armed {
    fn awaits(&self, fd: RawFd, flags: EventFlags) -> bool {
        self.fd == fd && self.flags.intersects(flags)
    }
}

#[derive(Default)]
struct State {
    epolls: Vec<(RawFd, Vec<Armed>)>,
    eventfds: Vec<(RawFd, u64)>,
    /// Other descriptors to which something has happened: for good.
    ready: Vec<(RawFd, EventFlags)>,
}

#[derive(Default)]
struct Kernel {
    state: Mutex<State>,
    changed: Condvar,
}

loom::lazy_static! {
    static ref KERNEL: Kernel = Kernel::default();
}

/// Call it before a model's threads start: a later first use would order them.
pub fn boot() {
    drop(lock());
}

fn lock() -> MutexGuard<'static, State> {
    KERNEL.state.lock().unwrap()
}

/// A number that nobody else has, and that can be closed.
fn new_descriptor() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

pub fn new_epoll() -> OwnedFd {
    let epoll = new_descriptor();
    lock().epolls.push((epoll.as_raw_fd(), Vec::new()));
    epoll
}

pub fn new_eventfd(initial: u64) -> OwnedFd {
    let fd = new_descriptor();
    lock().eventfds.push((fd.as_raw_fd(), initial));
    fd
}

impl State {
    fn epoll(&mut self, epoll: &OwnedFd) -> Result<&mut Vec<Armed>, Errno> {
        let epoll = epoll.as_raw_fd();
        self.epolls.iter_mut().find(|e| e.0 == epoll).map(|e| &mut e.1).ok_or(Errno::BADF)
    }

    fn eventfd(&mut self, fd: &OwnedFd) -> &mut u64 {
        let fd = fd.as_raw_fd();
        &mut self.eventfds.iter_mut().find(|e| e.0 == fd).expect("no eventfd").1
    }

    /// What has happened to whom.
    fn all(&self) -> Vec<(RawFd, EventFlags)> {
        let counted = self.eventfds.iter().filter(|e| e.1 > 0).map(|e| (e.0, EventFlags::IN));
        counted.chain(self.ready.iter().copied()).collect()
    }

    fn is_readable(&self, epoll: RawFd) -> bool {
        let armed = &self.epolls.iter().find(|e| e.0 == epoll).expect("no epoll instance").1;
        armed.iter().any(|armed| self.all().iter().any(|&(fd, flags)| armed.awaits(fd, flags)))
    }

    /// What an epoll instance has to tell; level-triggered, but for those that are armed once.
    fn events(&mut self, epoll: &OwnedFd) -> Vec<Event> {
        let all = self.all();
        let mut events = Vec::new();
        for armed in self.epoll(epoll).unwrap() {
            for &(fd, flags) in &all {
                if armed.awaits(fd, flags) {
                    events.push(Event { flags, data: armed.data });
                    if armed.flags.intersects(EventFlags::ONESHOT) {
                        armed.flags = EventFlags::ONESHOT;
                    }
                }
            }
        }
        events
    }
}

pub fn control(epoll: &OwnedFd, change: impl FnOnce(&mut Vec<Armed>) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut state = lock();
    let changed = change(state.epoll(epoll)?);
    KERNEL.changed.notify_all();
    changed
}

pub fn wait(epoll: &OwnedFd, for_ever: bool) -> Vec<Event> {
    let mut state = lock();
    loop {
        let events = state.events(epoll);
        note("epoll_wait, events", events.len() as u64);
        if !events.is_empty() || !for_ever {
            return events;
        }
        state = KERNEL.changed.wait(state).unwrap();
    }
}

pub fn count_up(fd: &OwnedFd, n: u64) {
    let mut state = lock();
    *state.eventfd(fd) += n;
    note("eventfd += ", n);
    drop(state);
    KERNEL.changed.notify_all();
}

pub fn take_count(fd: &OwnedFd) -> u64 {
    let mut state = lock();
    let count = std::mem::take(state.eventfd(fd));
    note("eventfd = 0, was", count);
    count
}

/// For models: the descriptor of this number is readable from now on.
pub fn happen(fd: RawFd) {
    lock().ready.push((fd, EventFlags::IN));
    KERNEL.changed.notify_all();
}

/// For models: waits until there is an event for who looks at an epoll instance from outside.
pub fn wait_readable(epoll: RawFd) {
    let mut state = lock();
    while !state.is_readable(epoll) {
        state = KERNEL.changed.wait(state).unwrap();
    }
}
