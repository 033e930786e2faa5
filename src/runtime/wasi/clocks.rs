//! `poll_oneoff` for clocks, and `sched_yield`: they need nothing of the store's WASI.

use wasmtime::{Error, Result};
use wasmtime_wasi::p1::types::{
    Clockid, Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Subclockflags, Subscription, SubscriptionU,
};
use wiggle::{GuestMemory, GuestPtr};

use super::Place;
use crate::runtime::wait::{self, Status};
use crate::sys::clock;
use crate::wasm::fiber::current;

/// Subscriptions that are looked at here; a program with more of them is no sleeper.
const MOST: u32 = 64;

/// What a blocking call of the fiber has come to, as WASI has it.
fn ended(status: Status) -> Result<()> {
    match (status, current()) {
        (Status::Cancelled, Some(fiber)) => Err(Error::new(fiber.why_stopped())),
        // Where it can't be suspended it may go on at once: both are hints.
        _ => Ok(()),
    }
}

/// Lets others run.
pub fn sched_yield() -> Result<i32> {
    ended(wait::yield_now())?;
    Ok(Errno::Success as i32)
}

/// Waits for clocks, if the guest waits for nothing else: what `poll_oneoff` returns.
pub fn sleep(place: Place, subscriptions: i32, events: i32, n: i32, count: i32) -> Result<Option<i32>> {
    let (n, mut memory) = (n as u32, place.memory());
    if n == 0 || n > MOST {
        return Ok(None);
    }
    let subscriptions = GuestPtr::<Subscription>::new(subscriptions as u32).as_array(n);
    let mut clocks = Vec::with_capacity(n as usize);
    for subscription in subscriptions.iter() {
        let Ok(subscription) = subscription.and_then(|at| memory.read(at)) else { return Ok(None) };
        let SubscriptionU::Clock(clock) = subscription.u else { return Ok(None) };
        let absolute = clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME);
        let now = match (clock.id, absolute) {
            // Only Wasmtime knows where the guest's monotonic clock began.
            (Clockid::Monotonic, true) => return Ok(None),
            (Clockid::Realtime, true) => clock::wall(),
            (Clockid::Monotonic | Clockid::Realtime, false) => 0,
            _ => return Ok(None),
        };
        clocks.push((clock::now().saturating_add(clock.timeout.saturating_sub(now)), subscription.userdata));
    }
    let first = clocks.iter().map(|clock| clock.0).min().unwrap_or(0);
    match wait::sleep_until(first) {
        Status::Ok => {}
        Status::Cancelled => ended(Status::Cancelled)?,
        // It can't be suspended here; Wasmtime blocks the thread.
        _ => return Ok(None),
    }
    let now = clock::now();
    let due = clocks.iter().filter(|clock| clock.0 <= now).map(|clock| clock.1);
    Ok(Some(write(&mut memory, due, events, count).map_or(Errno::Fault, |()| Errno::Success) as i32))
}

fn write(
    memory: &mut GuestMemory<'_>,
    due: impl Iterator<Item = u64>,
    events: i32,
    count: i32,
) -> std::result::Result<(), wiggle::GuestError> {
    let mut n = 0;
    for userdata in due {
        let event = Event {
            userdata,
            error: Errno::Success,
            type_: Eventtype::Clock,
            fd_readwrite: EventFdReadwrite { nbytes: 0, flags: Eventrwflags::empty() },
        };
        memory.write(GuestPtr::<Event>::new(events as u32).add(n)?, event)?;
        n += 1;
    }
    memory.write(GuestPtr::<u32>::new(count as u32), n)
}
