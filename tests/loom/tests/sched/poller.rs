//! A poller with nothing but what `idle` asks of one: events are counted, and a wake is sticky.

use models::sys::sync::atomic::{AtomicBool, Ordering};
use models::sys::sync::{Condvar, Mutex};

/// How many there were.
#[derive(Default)]
pub struct Events(pub usize);

impl Events {
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

#[derive(Default)]
pub struct Poller {
    used: bool,
    taken: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    events: usize,
}

impl Poller {
    pub fn new(used: bool) -> Poller {
        Poller { used, ..Poller::default() }
    }

    pub fn is_used(&self) -> bool {
        self.used
    }

    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    pub fn give_back(&self) {
        self.taken.store(false, Ordering::SeqCst);
    }

    pub fn wake(&self) {
        self.state.lock().unwrap().woken = true;
        self.changed.notify_all();
    }

    pub fn happen(&self) {
        self.state.lock().unwrap().events += 1;
        self.changed.notify_all();
    }

    pub fn poll(&self, wait: bool) -> Events {
        let mut state = self.state.lock().unwrap();
        while wait && !state.woken && state.events == 0 {
            state = self.changed.wait(state).unwrap();
        }
        state.woken = false;
        Events(std::mem::take(&mut state.events))
    }
}
