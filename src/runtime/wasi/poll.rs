//! `poll_oneoff` for clocks and for descriptors of the host's, and `sched_yield`: they need nothing of the store's WASI.

use wasmtime::{Error, Result};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p1::types::{
    Clockid, Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Subclockflags, Subscription, SubscriptionU,
};
use wiggle::{GuestMemory, GuestPtr};

use super::{Call, Entry, Place, stdio};
use crate::runtime::fd::{Readiness, Wanted, block, wait_any};
use crate::runtime::wait::{self, Status};
use crate::sched::poller::{READABLE, WRITABLE};
use crate::sys::clock;
use crate::wasm::fiber::current;

/// Subscriptions that are looked at here.
const MOST: u32 = 4096;

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
    /// A file, which is always ready.
    File(Eventtype),
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

/// What the guest's monotonic clock says: only the store's WASI knows where it began.
fn guest_now(caller: &mut Call<'_>) -> Result<Option<u64>> {
    let mut entry = Entry::new(caller)?;
    Ok(monotonic_clock::Host::now(&mut entry.wasi().clocks()).ok())
}

/// Reads the subscriptions; `None` if there is one that is for Wasmtime, or wrong.
fn read(caller: &mut Call<'_>, at: i32, n: u32) -> Result<Option<(Vec<Wait>, Vec<Wanted>)>> {
    let memory = Place::of(caller)?.memory();
    let all = GuestPtr::<Subscription>::new(at as u32).as_array(n);
    let all = all.iter().map(|at| memory.read(at?)).collect::<std::result::Result<Vec<_>, _>>();
    let Ok(all) = all else { return Ok(None) };
    let (mut waits, mut wanted, mut files) = (Vec::new(), Vec::new(), false);
    for subscription in all {
        let mut fd = |guest: u32, events, kind| match stdio::behind(caller, guest as i32, events) {
            Some((_, fd)) => {
                wanted.push(Wanted { fd, events, ready: Readiness::Not });
                What::Fd(wanted.len() - 1, kind)
            }
            None => What::File(kind),
        };
        let what = match subscription.u {
            SubscriptionU::Clock(clock) => {
                let absolute = clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME);
                let now = match (clock.id, absolute) {
                    (Clockid::Monotonic, true) => guest_now(caller)?,
                    (Clockid::Realtime, true) => Some(clock::wall()),
                    (Clockid::Monotonic | Clockid::Realtime, false) => Some(0),
                    _ => None,
                };
                let Some(now) = now else { return Ok(None) };
                What::Clock(clock::now().saturating_add(clock.timeout.saturating_sub(now)))
            }
            SubscriptionU::FdRead(it) => fd(it.file_descriptor.into(), READABLE, Eventtype::FdRead),
            SubscriptionU::FdWrite(it) => fd(it.file_descriptor.into(), WRITABLE, Eventtype::FdWrite),
        };
        files |= matches!(what, What::File(_));
        waits.push(Wait { userdata: subscription.userdata, what });
    }
    // Files and Wasmtime's own input are for Wasmtime, unless there are descriptors that it knows nothing of.
    Ok((!files || !wanted.is_empty()).then_some((waits, wanted)))
}

/// Waits for clocks and descriptors of the host's, if the guest waits for nothing else: what `poll_oneoff` returns.
pub fn poll(caller: &mut Call<'_>, at: i32, events: i32, n: i32, count: i32) -> Result<Option<i32>> {
    let n = n as u32;
    if n == 0 || n > MOST {
        return Ok(None);
    }
    let Some((waits, mut wanted)) = read(caller, at, n)? else { return Ok(None) };
    let deadline = waits.iter().filter_map(|wait| match wait.what {
        What::Clock(at) => Some(at),
        What::File(_) => Some(0),
        What::Fd(..) => None,
    });
    let deadline = deadline.min();
    let status = if wanted.is_empty() {
        wait::sleep_until(deadline.unwrap_or(0))
    } else {
        wait_any(&mut wanted, deadline)
    };
    match status {
        Status::Ok | Status::Timeout => {}
        Status::Cancelled => ended(status)?,
        // It can't be suspended here: the thread blocks, in our hands or Wasmtime's.
        _ if wanted.is_empty() => return Ok(None),
        _ => _ = block(&mut wanted, deadline),
    }
    let now = clock::now();
    let due = waits.iter().filter_map(|wait| match wait.what {
        What::Clock(at) => (at <= now).then_some((wait.userdata, Eventtype::Clock)),
        // What is wrong with it, reading it tells.
        What::Fd(at, kind) => (wanted[at].ready != Readiness::Not).then_some((wait.userdata, kind)),
        What::File(kind) => Some((wait.userdata, kind)),
    });
    // Anew: the memory may have been moved while this waited.
    let mut memory = Place::of(caller)?.memory();
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
