//! As much of rustix as `sched::poller` uses: a kernel with epoll and eventfd, under loom. A wait for ever that
//! nobody ends is a deadlock, which loom reports.

macro_rules! flags {
    ($name:ident { $($flag:ident = $bit:expr),* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u32);

        #[allow(dead_code)]
        impl $name {
            $(pub const $flag: $name = $name($bit);)*

            pub fn set(&mut self, flags: $name, on: bool) {
                if on { self.0 |= flags.0 } else { self.0 &= !flags.0 }
            }

            pub fn intersects(self, flags: $name) -> bool {
                self.0 & flags.0 != 0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = $name;

            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }
    };
}

mod kernel;

pub use kernel::{boot, happen, wait_readable};

pub mod event {
    use std::os::fd::OwnedFd;

    use crate::io::Errno;

    pub struct Timespec {
        pub tv_sec: i64,
        pub tv_nsec: i64,
    }

    flags!(EventfdFlags { CLOEXEC = 1, NONBLOCK = 2 });

    pub fn eventfd(initial: u32, _flags: EventfdFlags) -> Result<OwnedFd, Errno> {
        Ok(crate::kernel::new_eventfd(initial.into()))
    }

    pub mod epoll {
        use std::mem::MaybeUninit;
        use std::os::fd::{AsFd, AsRawFd, OwnedFd};

        use super::Timespec;
        use crate::io::Errno;
        use crate::kernel;

        flags!(CreateFlags { CLOEXEC = 1 });
        flags!(EventFlags { IN = 1, OUT = 4, ERR = 8, HUP = 16, RDHUP = 1 << 13, ONESHOT = 1 << 30 });

        #[derive(Clone, Copy)]
        pub struct EventData(u64);

        impl EventData {
            pub fn new_u64(data: u64) -> EventData {
                EventData(data)
            }

            pub fn u64(self) -> u64 {
                self.0
            }
        }

        #[derive(Clone, Copy)]
        pub struct Event {
            pub flags: EventFlags,
            pub data: EventData,
        }

        pub fn create(_flags: CreateFlags) -> Result<OwnedFd, Errno> {
            Ok(kernel::new_epoll())
        }

        pub fn add(epoll: &OwnedFd, fd: impl AsFd, data: EventData, flags: EventFlags) -> Result<(), Errno> {
            kernel::control(epoll, |armed| {
                let fd = fd.as_fd().as_raw_fd();
                if armed.iter().any(|a| a.fd == fd) {
                    return Err(Errno::EXIST);
                }
                armed.push(kernel::Armed { fd, data, flags });
                Ok(())
            })
        }

        pub fn modify(epoll: &OwnedFd, fd: impl AsFd, data: EventData, flags: EventFlags) -> Result<(), Errno> {
            kernel::control(epoll, |armed| {
                let fd = fd.as_fd().as_raw_fd();
                let known = armed.iter_mut().find(|a| a.fd == fd).ok_or(Errno::NOENT)?;
                (known.data, known.flags) = (data, flags);
                Ok(())
            })
        }

        pub fn delete(epoll: &OwnedFd, fd: impl AsFd) -> Result<(), Errno> {
            kernel::control(epoll, |armed| {
                let fd = fd.as_fd().as_raw_fd();
                let at = armed.iter().position(|a| a.fd == fd).ok_or(Errno::NOENT)?;
                armed.remove(at);
                Ok(())
            })
        }

        type Buffers<'a> = (&'a mut [Event], &'a mut [MaybeUninit<Event>]);

        /// Waits for ever, or not at all.
        pub fn wait<'a>(
            epoll: &OwnedFd,
            buffer: &'a mut [MaybeUninit<Event>],
            timeout: Option<&Timespec>,
        ) -> Result<Buffers<'a>, Errno> {
            let events = kernel::wait(epoll, timeout.is_none());
            let (filled, rest) = buffer.split_at_mut(events.len());
            filled.iter_mut().zip(&events).for_each(|(to, event)| _ = to.write(*event));
            // SAFETY: all of these were just written.
            Ok((unsafe { &mut *(&raw mut *filled as *mut [Event]) }, rest))
        }
    }
}

pub mod io {
    use std::os::fd::OwnedFd;

    use crate::kernel;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Errno {
        BADF,
        EXIST,
        INTR,
        NOENT,
        PERM,
        NOMEM,
        NOSPC,
    }

    impl From<Errno> for std::io::Error {
        fn from(e: Errno) -> Self {
            std::io::Error::other(format!("{e:?}"))
        }
    }

    /// Of an eventfd.
    pub fn write(fd: &OwnedFd, bytes: &[u8; 8]) -> Result<usize, Errno> {
        kernel::count_up(fd, u64::from_ne_bytes(*bytes));
        Ok(8)
    }

    /// The same. (The real one fails when nothing is there; nobody asks.)
    pub fn read(fd: &OwnedFd, bytes: &mut [u8; 8]) -> Result<usize, Errno> {
        *bytes = kernel::take_count(fd).to_ne_bytes();
        Ok(8)
    }
}
