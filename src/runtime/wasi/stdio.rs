//! Standard input and output of a guest on descriptors of the host: pipes, sockets, terminals, which are waited for as fibers
//! wait. (Wasmtime's own reads the process's input on a thread of its own, and writes where it is called.)

use std::io::{Error as IoError, ErrorKind};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use wasmtime::{Error, Result};
use wasmtime_wasi::p1::types::{Ciovec, Errno, Iovec};
use wiggle::{GuestMemory, GuestPtr};

use super::{Call, Place, fiber_of};
use crate::runtime::fd::wait_fd;
use crate::runtime::wait::Status;
use crate::sched::poller::{READABLE, WRITABLE};
use crate::sys::pipe;
use crate::wasm::fiber::Fiber;

/// Bytes moved at a time; to a pipe that has room for anything, so many never block.
const CHUNK: usize = 4096;

/// The host's descriptor behind one of the guest's, if there is one.
pub fn behind(caller: &mut Call<'_>, fd: i32) -> Option<(&'static Fiber, RawFd)> {
    let fiber = fiber_of(caller)?;
    let host = fiber.strand.stdio.get(usize::try_from(fd).ok()?)?.load(Ordering::Relaxed);
    (host >= 0).then_some((fiber, host))
}

/// The guest has closed one of its descriptors, or put another one in its place.
pub fn forget(caller: &mut Call<'_>, fd: i32) {
    if let Some((fiber, _)) = behind(caller, fd) {
        fiber.strand.stdio[fd as usize].store(-1, Ordering::Relaxed);
    }
}

/// What the guest is told.
type Told<T> = std::result::Result<T, Errno>;

/// Waits until the descriptor is ready. What can't be waited for, a file, is.
fn ready(fiber: &Fiber, fd: RawFd, events: u32) -> Result<Told<()>> {
    match wait_fd(fd, events, None).0 {
        Status::Cancelled => Err(Error::new(fiber.why_stopped())),
        Status::Closed => Ok(Err(Errno::Badf)),
        Status::Limit => Ok(Err(Errno::Nomem)),
        _ => Ok(Ok(())),
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
    mut attempt: impl FnMut() -> std::io::Result<usize>,
) -> Result<Told<usize>> {
    loop {
        if let Err(errno) = ready(fiber, fd, events)? {
            return Ok(Err(errno));
        }
        match attempt() {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            done => return Ok(done.map_err(errno)),
        }
    }
}

/// The first vector with any bytes.
fn first<'a, T: wiggle::GuestType>(
    memory: &GuestMemory<'a>,
    (vectors, n): (i32, i32),
    bytes: fn(T) -> GuestPtr<[u8]>,
) -> Told<Option<GuestPtr<[u8]>>> {
    let vectors = GuestPtr::<[T]>::new((vectors as u32, n as u32));
    for vector in vectors.iter() {
        let vector = vector.and_then(|at| memory.read(at)).map_err(|_| Errno::Fault)?;
        let bytes = bytes(vector);
        if bytes.len() > 0 {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn finish(memory: &mut GuestMemory<'_>, moved: Told<usize>, count: i32) -> i32 {
    let write = |n: usize| memory.write(GuestPtr::<u32>::new(count as u32), n as u32).map_err(|_| Errno::Fault);
    moved.and_then(write).map_or_else(|errno| errno, |()| Errno::Success) as i32
}

/// `fd_read` from a descriptor of the host's.
pub fn read(place: Place, from: (&Fiber, RawFd), vectors: (i32, i32), count: i32) -> Result<i32> {
    let mut memory = place.memory();
    let target = first(&memory, vectors, |vector: Iovec| vector.buf.as_array(vector.buf_len));
    let moved = match target {
        Err(errno) => Err(errno),
        Ok(None) => Ok(0),
        Ok(Some(target)) => {
            let mut buffer = [0; CHUNK];
            let room = CHUNK.min(target.len() as usize);
            match moved(from, READABLE, || pipe::read(from.1, &mut buffer[..room]))? {
                Ok(n) => {
                    let part = GuestPtr::<[u8]>::new((target.offset().0, n as u32));
                    memory.copy_from_slice(&buffer[..n], part).map(|()| n).map_err(|_| Errno::Fault)
                }
                Err(errno) => Err(errno),
            }
        }
    };
    Ok(finish(&mut memory, moved, count))
}

/// `fd_write` to a descriptor of the host's: all of the first vector.
pub fn write(place: Place, to: (&Fiber, RawFd), vectors: (i32, i32), count: i32) -> Result<i32> {
    let mut memory = place.memory();
    let source = first(&memory, vectors, |vector: Ciovec| vector.buf.as_array(vector.buf_len));
    let source = source.and_then(|source| match source {
        Some(source) => memory.to_vec(source).map_err(|_| Errno::Fault),
        None => Ok(Vec::new()),
    });
    let moved = match source {
        Err(errno) => Err(errno),
        Ok(bytes) => {
            let mut written = Ok(0);
            while let Ok(n) = written
                && n < bytes.len()
            {
                let chunk = &bytes[n..bytes.len().min(n + CHUNK)];
                match moved(to, WRITABLE, || pipe::write(to.1, chunk))? {
                    Ok(more) => written = Ok(n + more),
                    // What was written before counts.
                    Err(errno) if n == 0 => written = Err(errno),
                    Err(_) => break,
                }
            }
            written
        }
    };
    Ok(finish(&mut memory, moved, count))
}
