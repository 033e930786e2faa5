//! Faults at guards of ours.
//!
//! Wasm checks its stack and traps. Host functions do not: they hit the guard below the stack,
//! which is a SIGSEGV. Our handler stands before Wasmtime's (which was installed when the process
//! made its first engine), asks whether the address is a guard of ours, and aborts with a message if it
//! is one below a native stack. A guard in a guest's memory (`tripwire`) is opened, and the access
//! made again. Everything else goes on to whoever was there before.

use std::sync::{Once, OnceLock};
use std::sync::atomic::{AtomicPtr, Ordering};

/// What a fault at some address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not ours.
    Unknown,
    /// The process can't go on; a message has been written.
    Fatal,
    /// The access will do now.
    Resolved,
}

/// Says what a fault at an address is; messages go through the second argument. Called in a signal
/// handler: must neither allocate nor lock.
pub type Describe = fn(usize, &mut dyn FnMut(&[u8])) -> Fault;

static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once per process. Call it after Wasmtime's is in place.
pub fn install(describe: Describe) {
    static ONCE: Once = Once::new();
    DESCRIBE.store(describe as *mut (), Ordering::Release);
    ONCE.call_once(|| {
        // SAFETY: both structures are plain data that `sigaction` reads and writes; the handler is
        // async-signal-safe (see `on_fault`).
        unsafe {
            // What stands there now must be known before a fault can reach our handler.
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGSEGV, std::ptr::null(), &mut old);
            let _ = PREVIOUS.set(old);
            let mut new: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = on_fault as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            libc::sigemptyset(&mut new.sa_mask);
            libc::sigaction(libc::SIGSEGV, &new, std::ptr::null_mut());
        }
    });
}

fn write_stderr(bytes: &[u8]) {
    // SAFETY: `write` is async-signal-safe; a failure can't be helped here.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

unsafe extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: only `install` stores here, and it stores a `Describe`.
        let describe: Describe = unsafe { std::mem::transmute(describe) };
        // SAFETY: the kernel passes a valid `siginfo_t`.
        let address = unsafe { (*info).si_addr() } as usize;
        // SAFETY: this thread's own.
        let errno = unsafe { *libc::__errno_location() };
        let fault = describe(address, &mut write_stderr);
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        match fault {
            Fault::Unknown => {}
            // SAFETY: no preconditions.
            Fault::Fatal => unsafe { libc::abort() },
            Fault::Resolved => return,
        }
    }
    let Some(old) = PREVIOUS.get() else { return };
    // SAFETY: `old` is what the kernel held before: a default action, or a handler of the type
    // that its flags tell. Restoring a default makes the fault happen again, and kill the process.
    unsafe {
        if old.sa_sigaction == libc::SIG_DFL || old.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(signal, old, std::ptr::null_mut());
        } else if old.sa_flags & libc::SA_SIGINFO != 0 {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Handler>(old.sa_sigaction)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(old.sa_sigaction)(signal);
        }
    }
}
