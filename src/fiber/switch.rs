//! Switching to a fiber's stack and back.

use std::mem::ManuallyDrop;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::stack::Stack;

/// Why a fiber switched back to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspend {
    /// It gave up its turn.
    Yield,
    /// It lost its turn at the end of its quantum.
    Preempt,
    /// It waits: the worker must park it, unless what it waits for has come meanwhile.
    Park,
}

type Inner = Coroutine<(), Suspend, (), Stack>;

/// A stack with the execution state of what runs on it.
///
/// W8: unwinding a suspended coroutine by force goes through C and Wasm frames, which aborts. So
/// this type never does: dropping a `Context` that is suspended leaks it and its stack. The
/// runtime lets every fiber end by itself instead.
pub struct Context(ManuallyDrop<Inner>);

/// The fiber's end of a switch, valid on its own stack only.
#[derive(Clone, Copy, Debug)]
pub struct Suspender(*const Yielder<(), Suspend>);

impl Context {
    /// Prepares `entry(arg, suspender)` to run on `stack` at the first [`Context::resume`].
    ///
    /// # Safety
    ///
    /// `arg` must stay valid until `entry` has returned. `entry` must not unwind.
    pub unsafe fn new(stack: Stack, entry: unsafe fn(*const (), Suspender), arg: *const ()) -> Self {
        let body = move |yielder: &Yielder<(), Suspend>, ()| {
            // SAFETY: the caller of `new` vouches for `arg`.
            unsafe { entry(arg, Suspender(yielder)) }
        };
        Context(ManuallyDrop::new(Coroutine::with_stack(stack, body)))
    }

    /// Runs the fiber until it suspends or ends; `None` says that it has ended.
    ///
    /// # Safety
    ///
    /// The caller owns the fiber (see `state`), and what is on the stack may run on this thread.
    #[inline(always)]
    pub unsafe fn resume(&mut self) -> Option<Suspend> {
        match self.0.resume(()) {
            CoroutineResult::Yield(why) => Some(why),
            CoroutineResult::Return(()) => None,
        }
    }

    /// Drops a context that was never resumed, and gives its stack back.
    ///
    /// # Safety
    ///
    /// It was never resumed.
    pub unsafe fn discard(context: Option<Context>) {
        if let Some(Context(inner)) = context {
            debug_assert!(!inner.started());
            drop(ManuallyDrop::into_inner(inner));
        }
    }

    /// Takes the stack out of a context that has ended. A suspended one is leaked (W8).
    pub fn into_stack(self) -> Option<Stack> {
        self.0.done().then(|| ManuallyDrop::into_inner(self.0).into_stack())
    }
}

impl Suspender {
    /// A suspender that must not be used.
    pub const fn dangling() -> Self {
        Suspender(std::ptr::null())
    }

    /// Switches back to whoever resumed this fiber; returns when it is resumed again, perhaps on
    /// another thread.
    ///
    /// # Safety
    ///
    /// Must be called on the stack of the context that this suspender was made for.
    #[inline]
    pub unsafe fn suspend(self, why: Suspend) {
        // SAFETY: the yielder lives at the base of the running stack.
        unsafe { (*self.0).suspend(why) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fiber::stack::{MIN_STACK, Pool};
    use crate::sys::memory::Guard;
    use std::cell::Cell;

    struct Tell<'a>(&'a Cell<u32>);
    impl Drop for Tell<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    unsafe fn twice(arg: *const (), suspender: Suspender) {
        // SAFETY: the tests pass a live cell.
        let _kept = Tell(unsafe { &*arg.cast::<Cell<u32>>() });
        for why in [Suspend::Yield, Suspend::Park] {
            // SAFETY: this is its stack.
            unsafe { suspender.suspend(why) };
        }
    }

    fn context(dropped: &Cell<u32>) -> Context {
        let stack = Pool::new(Guard::Mprotect).get(4 * MIN_STACK).unwrap();
        // SAFETY: the cell outlives the context; `twice` does not unwind.
        unsafe { Context::new(stack, twice, (&raw const *dropped).cast()) }
    }

    #[test]
    fn a_context_tells_why_it_came_back_and_ends() {
        let dropped = Cell::new(0);
        let mut context = context(&dropped);
        // SAFETY: this thread owns it.
        let turns = [(); 3].map(|()| unsafe { context.resume() });
        assert_eq!(turns, [Some(Suspend::Yield), Some(Suspend::Park), None]);
        assert_eq!(dropped.get(), 1);
        assert!(context.into_stack().is_some());
    }

    /// W8.
    #[test]
    fn a_suspended_context_is_never_unwound_from_outside() {
        for take in [false, true] {
            let dropped = Cell::new(0);
            let mut context = context(&dropped);
            // SAFETY: this thread owns it.
            assert_eq!(unsafe { context.resume() }, Some(Suspend::Yield));
            if take {
                assert!(context.into_stack().is_none());
            } else {
                let _goes_out_of_scope = context;
            }
            assert_eq!(dropped.get(), 0, "its frames were touched");
        }
    }
}
