//! Waiting for room (`wasm::room`): whoever finds none is woken when some is made.

mod end {
    pub trait Wake: Send + Sync {
        fn wake(&self);
    }
}
use models::sys;

#[allow(dead_code)]
#[path = "../../../src/wasm/room.rs"]
mod room;

use std::sync::Arc;

use end::Wake;
use loom::thread::{self, JoinHandle};
use models::sys::futex;
use models::sys::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use models::{model, model_within};
use room::Room;

/// As in `wasm::end`.
#[derive(Default)]
struct Event(AtomicU32);

impl Event {
    fn wait(&self) {
        while self.0.load(Ordering::Acquire) == 0 {
            futex::wait(&self.0, 0, None);
        }
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Wake for Event {
    fn wake(&self) {
        self.0.store(1, Ordering::Release);
        futex::wake(&self.0, 1);
    }
}

/// There may be one at a time.
#[derive(Default)]
struct World {
    room: Room,
    entered: AtomicUsize,
}

// SAFETY: all threads of a model run on one thread.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    /// As `Live::enter`.
    fn enter(&self) -> bool {
        let more = |n| (n < 1).then_some(n + 1);
        self.entered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// As `Live::vacate`.
    fn vacate(&self) {
        self.entered.fetch_sub(1, Ordering::Relaxed);
        self.room.made();
    }

    /// As `runtime::spawn::wait_for_room`; an impatient one gives up at once, whatever happens. Is it in?
    fn wait_for_room(&self, patient: bool) -> bool {
        if self.room.is_free() && self.enter() {
            return true;
        }
        let mut again = false;
        loop {
            let event = Arc::new(Event::default());
            let name = Arc::as_ptr(&event).cast();
            if self.room.wait(Arc::clone(&event) as Arc<dyn Wake>, again) && self.enter() {
                self.room.leave(name);
                self.room.made();
                return true;
            }
            if !patient {
                self.room.leave(name);
                return false;
            }
            loop {
                event.wait();
                event.reset();
                if !self.room.waits(name) {
                    break;
                }
            }
            if self.enter() {
                self.room.next();
                return true;
            }
            again = true;
        }
    }

    /// A thread that comes in, if it can, and goes.
    fn visitor(self: &Arc<World>, patient: bool) -> JoinHandle<()> {
        let world = Arc::clone(self);
        thread::spawn(move || {
            if world.wait_for_room(patient) {
                world.vacate();
            }
        })
    }
}

#[test]
fn who_waits_gets_the_room_that_is_made() {
    model(|| {
        let world = Arc::new(World::default());
        assert!(world.enter());
        let waits = world.visitor(true);
        world.vacate();
        waits.join().unwrap();
    });
}

#[test]
fn each_of_many_gets_in() {
    model_within(2, || {
        let world = Arc::new(World::default());
        assert!(world.enter());
        let visitors = [true, true].map(|patient| world.visitor(patient));
        world.vacate();
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    });
}

#[test]
fn who_gives_up_passes_on_the_room_that_it_was_woken_for() {
    model_within(2, || {
        let world = Arc::new(World::default());
        assert!(world.enter());
        let visitors = [false, true].map(|patient| world.visitor(patient));
        world.vacate();
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    });
}
