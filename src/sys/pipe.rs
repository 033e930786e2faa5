//! Reading and writing descriptors that may be blocking ones, without blocking where the kernel has a way, and without the
//! signal of a broken pipe.

use std::io::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

fn result(n: isize) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::last_os_error())
}

/// Reads what is there; `WouldBlock` if the kernel can tell that there is nothing. `patient`: waits for it.
pub fn read(fd: RawFd, buffer: &mut [u8], patient: bool) -> Result<usize> {
    let plain = |buffer: &mut [u8]| {
        // SAFETY: the buffer is valid for its length.
        result(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
    };
    if patient {
        return plain(buffer);
    }
    let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: one part, which is the buffer. -1: where the descriptor is.
    let n = unsafe { libc::preadv2(fd, &part, 1, -1, libc::RWF_NOWAIT) };
    match result(n) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => plain(buffer),
        read => read,
    }
}

/// Writes what there is room for; `WouldBlock` if the kernel can tell that there is none. `patient`: waits for it.
pub fn write(fd: RawFd, bytes: &[u8], patient: bool) -> Result<usize> {
    let plain = || {
        // SAFETY: the bytes are valid for their length.
        result(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
    };
    without_sigpipe(|| {
        if patient {
            return plain();
        }
        let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: one part, which is only read.
        let n = unsafe { libc::pwritev2(fd, &part, 1, -1, libc::RWF_NOWAIT) };
        match result(n) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => plain(),
            written => written,
        }
    })
}

/// A write to a pipe that nobody reads raises a signal in the thread that writes, which ends a process that does not
/// ignore it. Keeps it back, and takes it away if this write has raised it.
fn without_sigpipe(write: impl FnOnce() -> Result<usize>) -> Result<usize> {
    // SAFETY: the sets are initialised before they are used, and the calls get valid pointers.
    unsafe {
        let mut sigpipe = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(sigpipe.as_mut_ptr());
        libc::sigaddset(sigpipe.as_mut_ptr(), libc::SIGPIPE);
        let sigpipe = sigpipe.assume_init();
        let (mut before, mut pending) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        libc::sigpending(pending.as_mut_ptr());
        // One that is pending already is somebody else's.
        let theirs = libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe, before.as_mut_ptr());
        let written = write();
        let broken = written.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EPIPE));
        if broken && !theirs {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&sigpipe, std::ptr::null_mut(), &now);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_broken_pipe_is_an_error_and_no_signal() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(read(reader.as_raw_fd(), &mut [0; 4], false).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(write(writer.as_raw_fd(), b"abc", false).unwrap(), 3);
        let mut buffer = [0; 8];
        assert_eq!(read(reader.as_raw_fd(), &mut buffer, false).unwrap(), 3);
        assert_eq!(&buffer[..3], b"abc");
        drop(reader);
        // SAFETY: this process's own disposition, set back below; without it the test's harness ignores the signal.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert_eq!(write(writer.as_raw_fd(), b"abc", false).unwrap_err().raw_os_error(), Some(libc::EPIPE));
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGPIPE, before) };
    }
}
