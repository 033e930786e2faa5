//! Address space: reservations, guard regions, giving pages back.

use std::io;
use std::ptr::null_mut;

/// The kernel marks the pages as faulting without splitting the mapping (Linux 6.13).
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// How guards are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// `MADV_GUARD_INSTALL`: no mapping is split, so a million guards cost no more mappings.
    Install,
    /// `mprotect`: works everywhere; each guard splits a mapping, and the default limit of
    /// 65,530 mappings then bounds the fibers to about 32,000.
    Mprotect,
}

/// Makes any access to whole pages a fault. What was in them is lost, or out of reach.
///
/// # Safety
///
/// The pages are private, readable and writable memory that the caller may do this to.
pub unsafe fn guard(at: *mut u8, len: usize, how: Guard) -> io::Result<()> {
    // SAFETY: per contract.
    let result = unsafe {
        match how {
            Guard::Install => libc::madvise(at.cast(), len, MADV_GUARD_INSTALL),
            Guard::Mprotect => libc::mprotect(at.cast(), len, libc::PROT_NONE),
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a [`guard`] back, or a part of one; false if the system won't: a part of one costs more mappings.
/// May be called in a signal handler.
///
/// # Safety
///
/// As for `guard`.
pub unsafe fn unguard(at: *mut u8, len: usize, how: Guard) -> bool {
    // SAFETY: per contract. What was readable and writable before may be so again.
    unsafe {
        let result = match how {
            Guard::Install => libc::madvise(at.cast(), len, MADV_GUARD_REMOVE),
            Guard::Mprotect => libc::mprotect(at.cast(), len, libc::PROT_READ | libc::PROT_WRITE),
        };
        result == 0
    }
}

/// The size of a page.
pub fn page() -> usize {
    // SAFETY: no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// A private, anonymous, readable and writable mapping. Pages get memory when first touched.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: a mapping is plain memory of the process; `Mapping` gives out no reference into it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes, a multiple of the page size.
    pub fn new(len: usize) -> io::Result<Mapping> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A huge page would make a 4 KiB stack cost 2 MiB. Failure means the kernel has none.
        // SAFETY: the range was mapped just now.
        unsafe { libc::madvise(base, len, libc::MADV_NOHUGEPAGE) };
        Ok(Mapping { base: base.cast(), len })
    }

    /// The lowest address.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Makes any access to `[offset, offset + len)` a fault.
    pub fn guard(&self, offset: usize, len: usize, how: Guard) -> io::Result<()> {
        assert!(offset + len <= self.len);
        // SAFETY: the range lies inside this mapping; the caller has nothing in it.
        unsafe { guard(self.base.add(offset), len, how) }
    }

    /// Gives the memory of `[offset, offset + len)` back; it reads as zero afterwards. Guards stay.
    pub fn discard(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.len);
        // SAFETY: the range lies inside this mapping; the caller no longer needs what is in it.
        unsafe { libc::madvise(self.base.add(offset).cast(), len, libc::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever drops it has nothing in it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Does this kernel have `MADV_GUARD_INSTALL`? Tried once on a page of our own.
pub fn has_guard_install() -> bool {
    static HAS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *HAS.get_or_init(|| {
        let page = page();
        Mapping::new(page).is_ok_and(|m| m.guard(0, page, Guard::Install).is_ok())
    })
}
