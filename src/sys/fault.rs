//! Naming the fiber when host code runs over the end of its stack.
//!
//! Wasm checks its stack and traps. Host functions do not: they hit the guard below the stack,
//! which is a SIGSEGV. Our handler stands before Wasmtime's (which was installed when the process
//! made its first engine), asks whether the address is a guard of the fiber on this thread, says
//! so and aborts; everything else goes on to whoever was there before.

use std::sync::{Once, OnceLock};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Says what lies at a faulting address: writes a message through its second argument and returns
/// true, if the address is a guard of the fiber that runs on this thread. Called in a signal
/// handler: must neither allocate nor lock.
pub type Describe = fn(usize, &mut dyn FnMut(&[u8])) -> bool;

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
        if describe(address, &mut write_stderr) {
            // SAFETY: no preconditions.
            unsafe { libc::abort() };
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
