//! `poll_oneoff` for clocks and for descriptors of the host's, and `sched_yield`: they need nothing of the store's WASI.

use wasmtime::{Error, Result};
use wasmtime_wasi::p1::types::{
    Clockid, Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Subclockflags, Subscription, SubscriptionU,
};
use wiggle::{GuestMemory, GuestPtr};

use super::{Call, Place, stdio};
use crate::runtime::fd::{Wanted, wait_any};
use crate::runtime::wait::{self, Status};
use crate::sched::poller::{READABLE, WRITABLE};
use crate::sys::clock;
use crate::wasm::fiber::current;

/// Subscriptions that are looked at here; a program with more of them is no sleeper.
const MOST: u32 = 64;

/// One subscription.
struct Wait {
    userdata: u64,
    what: What,
}

enum What {
    /// Until then.
    Clock(u64),
    /// The descriptor at this place of those that are waited for.
    Fd(usize, Eventtype),
}

/// Why the fiber ends, if it does.
fn ended(status: Status) -> Result<()> {
    match (status, current()) {
        (Status::Cancelled, Some(fiber)) => Err(Error::new(fiber.why_stopped())),
        _ => Ok(()),
    }
}

/// Lets others run.
pub fn sched_yield() -> Result<i32> {
    // Where the fiber can't be suspended it may go on at once: it is a hint.
    ended(wait::yield_now())?;
    Ok(Errno::Success as i32)
}

/// Reads the subscriptions; `None` if there is one that is for Wasmtime, or wrong.
fn read(caller: &mut Call<'_>, memory: &GuestMemory<'_>, at: i32, n: u32) -> Option<(Vec<Wait>, Vec<Wanted>)> {
    let (mut waits, mut wanted) = (Vec::with_capacity(n as usize), Vec::new());
    for subscription in GuestPtr::<Subscription>::new(at as u32).as_array(n).iter() {
        let subscription = memory.read(subscription.ok()?).ok()?;
        let mut fd = |guest: u32, events, kind| {
            let (_, fd) = stdio::behind(caller, guest as i32)?;
            wanted.push((fd, events));
            Some(What::Fd(wanted.len() - 1, kind))
        };
        let what = match subscription.u {
            SubscriptionU::Clock(clock) => {
                let absolute = clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME);
                let began = match (clock.id, absolute) {
                    // Only Wasmtime knows where the guest's monotonic clock began.
                    (Clockid::Monotonic, true) => return None,
                    (Clockid::Realtime, true) => clock::wall(),
                    (Clockid::Monotonic | Clockid::Realtime, false) => 0,
                    _ => return None,
                };
                What::Clock(clock::now().saturating_add(clock.timeout.saturating_sub(began)))
            }
            SubscriptionU::FdRead(it) => fd(it.file_descriptor.into(), READABLE, Eventtype::FdRead)?,
            SubscriptionU::FdWrite(it) => fd(it.file_descriptor.into(), WRITABLE, Eventtype::FdWrite)?,
        };
        waits.push(Wait { userdata: subscription.userdata, what });
    }
    Some((waits, wanted))
}

/// Waits for clocks and descriptors of the host's, if the guest waits for nothing else: what `poll_oneoff` returns.
pub fn poll(caller: &mut Call<'_>, place: Place, at: i32, events: i32, n: i32, count: i32) -> Result<Option<i32>> {
    let (n, mut memory) = (n as u32, place.memory());
    if n == 0 || n > MOST {
        return Ok(None);
    }
    let Some((waits, mut wanted)) = read(caller, &memory, at, n) else { return Ok(None) };
    let deadline = waits.iter().filter_map(|wait| if let What::Clock(at) = wait.what { Some(at) } else { None }).min();
    let status = if wanted.is_empty() {
        wait::sleep_until(deadline.unwrap_or(0))
    } else {
        wait_any(&mut wanted, deadline)
    };
    match status {
        Status::Ok | Status::Timeout | Status::Closed => {}
        Status::Cancelled => ended(status)?,
        // A file is always ready, and so is what is wrong: reading it tells.
        Status::Failed => {}
        // It can't be suspended here; Wasmtime blocks the thread.
        _ => return Ok(None),
    }
    let (failed, now) = (status == Status::Failed, clock::now());
    let due = waits.iter().filter_map(|wait| match wait.what {
        What::Clock(at) => (at <= now).then_some((wait.userdata, Eventtype::Clock)),
        What::Fd(at, kind) => (failed || wanted[at].1 != 0).then_some((wait.userdata, kind)),
    });
    Ok(Some(write(&mut memory, due, events, count).map_or(Errno::Fault, |()| Errno::Success) as i32))
}

fn write(
    memory: &mut GuestMemory<'_>,
    due: impl Iterator<Item = (u64, Eventtype)>,
    events: i32,
    count: i32,
) -> std::result::Result<(), wiggle::GuestError> {
    let mut n = 0;
    for (userdata, type_) in due {
        // How many bytes there are is not known; that there is one is.
        let nbytes = u64::from(type_ != Eventtype::Clock);
        let fd_readwrite = EventFdReadwrite { nbytes, flags: Eventrwflags::empty() };
        let event = Event { userdata, error: Errno::Success, type_, fd_readwrite };
        memory.write(GuestPtr::<Event>::new(events as u32).add(n)?, event)?;
        n += 1;
    }
    memory.write(GuestPtr::<u32>::new(count as u32), n)
}
