//! Standard input and output of a guest on descriptors of the host: pipes, sockets, terminals, which are waited for as fibers
//! wait. (Wasmtime's own reads the process's input on a thread of its own, and writes where it is called.)

use std::io::{Error as IoError, ErrorKind};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use wasmtime::{Error, Result};
use wasmtime_wasi::p1::types::{Ciovec, Errno, Iovec};
use wiggle::{GuestMemory, GuestPtr};

use super::{Call, Place, fiber_of};
use crate::runtime::fd::{Readiness, Wanted, block, wait_fd};
use crate::runtime::wait::Status;
use crate::sched::poller::{READABLE, WRITABLE};
use crate::sys::pipe;
use crate::wasm::fiber::Fiber;

/// Bytes moved at a time; to a pipe that has room for anything, so many never block.
const CHUNK: usize = 4096;

/// Vectors without bytes that are passed over.
const EMPTY: u32 = 1024;

/// The host's descriptor behind one of the guest's, if there is one for such an event.
pub fn behind(caller: &mut Call<'_>, fd: i32, event: u32) -> Option<(&'static Fiber, RawFd)> {
    let fiber = fiber_of(caller)?;
    let host = fiber.strand.stdio.get(usize::try_from(fd).ok()?)?.load(Ordering::Relaxed);
    let fits = (fd == 0) == (event == READABLE);
    (host >= 0 && fits).then_some((fiber, host))
}

/// The guest has closed one of its descriptors, or put it in the place of another one.
pub fn renumber(caller: &mut Call<'_>, from: i32, to: Option<i32>) {
    let Some(fiber) = fiber_of(caller) else { return };
    let place = |fd: i32| fiber.strand.stdio.get(usize::try_from(fd).ok()?);
    let host = place(from).map_or(-1, |place| place.swap(-1, Ordering::Relaxed));
    if let Some(place) = to.and_then(place) {
        place.store(host, Ordering::Relaxed);
    }
}

/// What the guest is told.
type Told<T> = std::result::Result<T, Errno>;

/// Waits until the descriptor is ready. True: it is a file, which is always.
fn ready(fiber: &Fiber, fd: RawFd, events: u32) -> Result<Told<bool>> {
    match wait_fd(fd, events, None).0 {
        Status::Ok => Ok(Ok(false)),
        Status::Failed => Ok(Ok(true)),
        Status::Cancelled => Err(Error::new(fiber.why_stopped())),
        Status::Closed => Ok(Err(Errno::Badf)),
        Status::Limit => Ok(Err(Errno::Nomem)),
        // It can't be suspended: the thread blocks.
        _ => {
            block(&mut [Wanted { fd, events, ready: Readiness::Not }], None);
            Ok(Ok(false))
        }
    }
}

fn errno(error: IoError) -> Errno {
    match error.raw_os_error() {
        Some(libc::EBADF) => Errno::Badf,
        Some(libc::EPIPE) => Errno::Pipe,
        Some(libc::ECONNRESET) => Errno::Connreset,
        Some(libc::ENOSPC) => Errno::Nospc,
        Some(libc::EISDIR) => Errno::Isdir,
        Some(libc::EINVAL) => Errno::Inval,
        _ => Errno::Io,
    }
}

/// Moves bytes: waits until that is possible, and tries again if others were quicker.
fn moved(
    (fiber, fd): (&Fiber, RawFd),
    events: u32,
    mut attempt: impl FnMut(bool) -> std::io::Result<usize>,
) -> Result<Told<usize>> {
    loop {
        let patient = match ready(fiber, fd, events)? {
            Ok(patient) => patient,
            Err(errno) => return Ok(Err(errno)),
        };
        match attempt(patient) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            done => return Ok(done.map_err(errno)),
        }
    }
}

/// Where the first vector with any bytes has them, and how many.
fn first<T: wiggle::GuestType>(
    memory: &GuestMemory<'_>,
    (vectors, n): (i32, i32),
    bytes: fn(T) -> GuestPtr<[u8]>,
) -> Told<(u32, usize)> {
    let vectors = GuestPtr::<[T]>::new((vectors as u32, (n as u32).min(EMPTY)));
    for vector in vectors.iter() {
        let vector = vector.and_then(|at| memory.read(at)).map_err(|_| Errno::Fault)?;
        let bytes = bytes(vector);
        if bytes.len() > 0 {
            return Ok((bytes.offset().0, bytes.len() as usize));
        }
    }
    if n as u32 > EMPTY { Err(Errno::Inval) } else { Ok((0, 0)) }
}

fn finish(memory: &mut GuestMemory<'_>, moved: Told<usize>, count: i32) -> i32 {
    let write = |n: usize| memory.write(GuestPtr::<u32>::new(count as u32), n as u32).map_err(|_| Errno::Fault);
    moved.and_then(write).map_or_else(|errno| errno, |()| Errno::Success) as i32
}

/// `fd_read` from a descriptor of the host's.
pub fn read(caller: &mut Call<'_>, from: (&Fiber, RawFd), vectors: (i32, i32), count: i32) -> Result<i32> {
    let memory = Place::of(caller)?.memory();
    let target = first(&memory, vectors, |vector: Iovec| vector.buf.as_array(vector.buf_len));
    let mut buffer = [0; CHUNK];
    let moved = match target {
        Ok((at, room)) if room > 0 => {
            let room = room.min(CHUNK);
            moved(from, READABLE, |patient| pipe::read(from.1, &mut buffer[..room], patient))?.map(|n| (at, n))
        }
        other => other,
    };
    // Anew: the memory may have been moved while this waited.
    let mut memory = Place::of(caller)?.memory();
    let moved = moved.and_then(|(at, n)| {
        let part = GuestPtr::<[u8]>::new((at, n as u32));
        memory.copy_from_slice(&buffer[..n], part).map(|()| n).map_err(|_| Errno::Fault)
    });
    Ok(finish(&mut memory, moved, count))
}

/// `fd_write` to a descriptor of the host's: all of the first vector.
pub fn write(caller: &mut Call<'_>, to: (&Fiber, RawFd), vectors: (i32, i32), count: i32) -> Result<i32> {
    let memory = Place::of(caller)?.memory();
    let mut written = Ok(0);
    match first(&memory, vectors, |vector: Ciovec| vector.buf.as_array(vector.buf_len)) {
        Err(errno) => written = Err(errno),
        Ok((at, len)) => {
            while let Ok(n) = written
                && n < len
            {
                // Anew: see above. A chunk at a time: what waits holds no more of the host's memory.
                let part = GuestPtr::<[u8]>::new((at.wrapping_add(n as u32), CHUNK.min(len - n) as u32));
                let moved = match Place::of(caller)?.memory().to_vec(part) {
                    Ok(chunk) => moved(to, WRITABLE, |patient| pipe::write(to.1, &chunk, patient))?,
                    Err(_) => Err(Errno::Fault),
                };
                match moved {
                    Ok(more) => written = Ok(n + more),
                    // What was written before counts.
                    Err(errno) if n == 0 => written = Err(errno),
                    Err(_) => break,
                }
            }
        }
    }
    Ok(finish(&mut Place::of(caller)?.memory(), written, count))
}
