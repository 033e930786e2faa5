//! Shadow stacks: the stacks that compiled guests keep in linear memory.
//!
//! C, C++ and Rust put what has an address on a stack of their own, behind a global that every toolchain
//! calls `__stack_pointer`. Two fibers of one instance would overwrite each other's frames there, so each
//! gets a region of the memory and a value of the global, which is switched with the fiber:
//!
//! ```text
//!   linear memory   | data, heap, the instance's own stack | guard | region | guard | region | ...
//!                                                                    ▲ low    ▲ top: where a fiber's
//!   the global      while a fiber's words are in the store: its own                  stack begins
//!                   else: the instance's own (`base`)
//! ```
//!
//! Invariant **one stack each**: a region belongs to one fiber from [`Strand::equip`] until its [`Frame`] is
//! given back. What runs without one (a host thread that has entered the store; the fiber that first shared its
//! own instance; a fiber that is just being equipped) runs on the instance's own stack, one at a time and
//! below whatever lies suspended there.
//!
//! **Overflow.** Who runs below its region hits the guard (`sys::tripwire`), which opens and marks the
//! fiber that runs; it traps at its next epoch check, and what it wrote until then lies in the guard, which is
//! nobody's. Whoever else opens a guard by touching it (a copy of all memory, a wild pointer) harms nobody either:
//! it is closed again before another fiber of the store runs. Only a single frame larger than the guard can step
//! over it. That is seen at the next switch, by the value of the global, and the fiber then traps before it runs on.
//!
//! `find` and `expose` make the global reachable, `locate` finds its address, `region` looks after the memory.

pub mod expose;
pub mod find;
pub mod locate;
mod region;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::Ordering;

use wasmtime::{Error, Extern, Store, Trap};
use wasmtime_c_api::WasmtimeStoreData;

use super::bridge;
use super::fiber::{self, Fiber};
use super::shared::Shared;
use super::strand::Strand;
use crate::fiber::switch::Suspend;
use crate::sys::tripwire;
use locate::Exports;
pub use region::Source;
#[cfg(test)]
pub use region::may_move;
use region::{Region, Regions};

/// What compiled code keeps below its stack pointer: LLVM lets a function that calls none use 128 bytes
/// without moving it.
const RED_ZONE: u32 = 128;

/// How an instance is to be shared.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The exports to use; `None`: the usual names.
    pub stack_pointer: Option<String>,
    pub memory: Option<String>,
    /// Bytes of a fiber's region, unless its spawn says otherwise.
    pub stack_size: u32,
    /// Bytes of the guard below it.
    pub guard_size: u32,
    pub source: Source,
    /// Regions to be made at once.
    pub reserve: usize,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            stack_pointer: None,
            memory: None,
            stack_size: 64 << 10,
            guard_size: 16 << 10,
            source: Source::Grow,
            reserve: 0,
        }
    }
}

/// Why an instance is not shared anew.
#[derive(Debug)]
pub enum NotShared {
    /// Its stack pointer is shared already.
    Already,
    Because(String),
}

impl From<String> for NotShared {
    fn from(why: String) -> NotShared {
        NotShared::Because(why)
    }
}

impl fmt::Display for NotShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotShared::Already => "the instance's stack pointer is shared already",
            NotShared::Because(why) => why,
        })
    }
}

/// An instance that the fibers of a store share. It belongs to the owner of the strand.
pub struct Shadow {
    /// The global's value. It lies in the instance, which lives as long as the store.
    pointer: *mut u32,
    /// Its value while no fiber's is in it.
    base: Cell<u32>,
    /// Which global it is.
    number: [u32; 3],
    regions: RefCell<Regions>,
}

/// A fiber's stack in one of the shared instances.
#[derive(Debug)]
pub struct Frame {
    /// `None`: it is the instance's own stack.
    region: Option<Region>,
    /// The global's value for this fiber, while another one is in it.
    pointer: Cell<u32>,
    /// The addresses of the guard below the region.
    guard: (usize, usize),
}

impl Shadow {
    /// Finds what must be switched. The caller owns the store.
    fn new(
        shared: &Shared,
        store: &mut Store<WasmtimeStoreData>,
        exports: Exports,
        plan: &Plan,
        others: &[Shadow],
        alone: bool,
    ) -> Result<Shadow, NotShared> {
        let Exports { global, memory, allocator } = exports;
        let number = bridge::global_number(global);
        if others.iter().any(|other| other.number == number) {
            return Err(NotShared::Already);
        }
        if !alone {
            return Err("the store has several fibers already: see bop_store_share".to_string().into());
        }
        let (pointer, definition) = locate::addresses(shared, store, global, memory)?;
        let guard = shared.pool.guard();
        let mut regions = Regions::new(store, memory, definition, allocator, plan, guard)?;
        // SAFETY: just found, and verified; the caller owns the store.
        let base = Cell::new(unsafe { *pointer });
        regions.reserve(store, plan.reserve)?;
        Ok(Shadow { pointer, base, number, regions: RefCell::new(regions) })
    }

    /// A stack of `size` bytes (`None`: the usual) for the running fiber.
    fn frame(&self, store: &mut Store<WasmtimeStoreData>, size: Option<u32>) -> Result<Frame, String> {
        let mut regions = self.regions.borrow_mut();
        let region = regions.take(store, size)?;
        let (pointer, guard) = (Cell::new(region.top()), regions.guard_of(&region));
        Ok(Frame { region: Some(region), pointer, guard })
    }
}

/// The trap of a fiber whose shadow stack is used up.
#[derive(Debug)]
struct Overrun(u32);

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fiber has used up its {} bytes of stack in linear memory", self.0)
    }
}

impl Frame {
    /// Has the stack pointer left the region?
    #[inline]
    fn is_left_by(&self, pointer: u32) -> bool {
        self.region.as_ref().is_some_and(|region| pointer < region.low)
    }
}

impl Strand {
    /// Shares an instance, of which `get` finds exports, among the fibers to come. The caller owns the strand.
    /// There are no fibers; or only `fiber`, which runs, and stays on the stack that it has.
    pub fn share(
        &self,
        plan: &Plan,
        fiber: Option<&Fiber>,
        get: impl Fn(&mut Store<WasmtimeStoreData>, &str) -> Option<Extern>,
    ) -> Result<(), NotShared> {
        // SAFETY: the caller owns the strand.
        let (store, shadows) = unsafe { (self.store(), &mut *self.shadows.get()) };
        let exports = Exports::find(store, plan, get)?;
        let alone = fiber.is_none() || self.fibers() == 1;
        let shadow = Shadow::new(&self.shared, store, exports, plan, shadows, alone)?;
        if let Some(fiber) = fiber {
            let frame = Frame { region: None, pointer: shadow.base.clone(), guard: (0, 0) };
            // SAFETY: the running fiber's own.
            unsafe { (*fiber.frames.get()).push(frame) };
        }
        let limit = shadow.regions.borrow().largest();
        self.shadow_limit.fetch_min(limit, Ordering::Relaxed);
        shadows.push(shadow);
        Ok(())
    }

    /// # Safety
    ///
    /// The caller owns the strand, or is the fiber that runs.
    #[inline]
    unsafe fn shared_instances(&self) -> &[Shadow] {
        // SAFETY: per contract. `share` alone changes the list, when no other fiber is there.
        unsafe { &*self.shadows.get() }
    }

    /// Could fibers have shadow stacks of this size? The caller is anybody: the store must have no fibers
    /// yet, or keep the instances that it shares.
    pub fn check_shadow_stack(&self, size: u32) -> Result<(), String> {
        let most = self.shadow_limit.load(Ordering::Relaxed);
        if u64::from(size) > most {
            return Err(format!("a shadow stack of {size} bytes is too large: the memory allows {most}"));
        }
        Ok(())
    }

    /// Gives the running fiber, which has just begun, its stacks in the shared instances.
    pub fn equip(&self, fiber: &Fiber, size: Option<u32>) -> Result<(), String> {
        // SAFETY: the running fiber. It is counted, so the list stays as it is although this may suspend.
        for shadow in unsafe { self.shared_instances() } {
            let calls_guest = || shadow.regions.borrow().calls_guest(size);
            // A sibling that lost its turn somewhere in the guest may be in the middle of the allocator.
            while calls_guest() && self.preempted.get() > 0 && !fiber.cancelled() {
                fiber.suspend(Suspend::Yield);
            }
            if fiber.cancelled() {
                return Err("cancelled".into());
            }
            fiber.no_switch.set(true);
            // SAFETY: the running fiber.
            let frame = shadow.frame(unsafe { self.store() }, size);
            fiber.no_switch.set(false);
            let frame = frame?;
            // SAFETY: the store is ours; see `Shadow`. The frames are borrowed only here: the owner looks at them
            // at each switch, and so does an epoch check in the allocator.
            unsafe {
                shadow.base.set(*shadow.pointer);
                *shadow.pointer = frame.pointer.get();
                (*fiber.frames.get()).push(frame);
            }
        }
        Ok(())
    }

    /// Takes the stacks of a fiber that has ended back. The caller owns the strand, and the pointers in place
    /// are stale.
    pub fn unequip(&self, fiber: &Fiber) {
        // SAFETY: the owner of both.
        let (shadows, frames) = unsafe { (self.shared_instances(), &mut *fiber.frames.get()) };
        for (shadow, frame) in shadows.iter().zip(frames.drain(..)) {
            match frame.region {
                Some(region) => shadow.regions.borrow_mut().put(region),
                // The instance's own stack is where its first fiber has left it.
                // SAFETY: see `Shadow`.
                None => shadow.base.set(unsafe { *shadow.pointer }),
            }
        }
    }

    /// Puts the stack pointers of `next` in place of those of `last`; `None` is the instances' own. `stale`: those
    /// that are in place are nobody's. The caller owns the strand.
    #[inline]
    pub(super) fn swap_pointers(&self, last: Option<&Fiber>, next: Option<&Fiber>, stale: bool) {
        // SAFETY: the owner of the strand, so of all frames in it; see `Shadow` for the pointer.
        unsafe {
            let shadows = self.shared_instances();
            let opened = if shadows.is_empty() { return } else { tripwire::opened() };
            let opened_since = self.opened.replace(opened) != opened;
            for (i, shadow) in shadows.iter().enumerate() {
                let now = *shadow.pointer;
                match last.and_then(|fiber| Some((fiber, fiber.frame(i)?))) {
                    Some((fiber, frame)) => {
                        frame.pointer.set(now);
                        if frame.is_left_by(now) {
                            fiber.overrun();
                        }
                        if frame.region.is_none() {
                            // Below what lies suspended there.
                            shadow.base.set(now.wrapping_sub(RED_ZONE) & !15);
                        }
                    }
                    None if stale => {}
                    None => shadow.base.set(now),
                }
                if opened_since {
                    shadow.regions.borrow_mut().close_opened();
                }
                let frame = next.and_then(|fiber| fiber.frame(i));
                *shadow.pointer = frame.map_or(shadow.base.get(), |frame| frame.pointer.get());
            }
        }
    }
}

impl Fiber {
    /// Its stack in the `i`-th shared instance.
    ///
    /// # Safety
    ///
    /// The caller owns the fiber, or is it.
    #[inline]
    unsafe fn frame(&self, i: usize) -> Option<&Frame> {
        // SAFETY: per contract.
        unsafe { (&*self.frames.get()).get(i) }
    }

    /// It has left its stack: it traps when it next looks up, which is soon. May run in a signal handler.
    #[cold]
    fn overrun(&self) {
        self.overran.store(true, Ordering::Relaxed);
        self.shared().engine.increment_epoch();
    }

    /// The trap of a fiber that has left its stack. Only the fiber itself calls this.
    pub fn overrun_trap(&self) -> Option<Error> {
        // SAFETY: the running fiber; see `Shadow` for the pointer.
        unsafe {
            let shadows = self.strand.shared_instances();
            let left = |(shadow, frame): (&Shadow, &Frame)| frame.is_left_by(*shadow.pointer);
            let frames = &*self.frames.get();
            let left = self.overran.load(Ordering::Relaxed) || shadows.iter().zip(frames).any(left);
            let size = frames.iter().filter_map(|frame| Some(frame.region.as_ref()?.size)).max()?;
            left.then(|| Error::from(Trap::StackOverflow).context(Overrun(size)))
        }
    }
}

/// A guard at this address was opened: marks the fiber whose it is, if that runs. Runs in a signal
/// handler.
pub fn overrun(address: usize) {
    let Some(fiber) = fiber::current() else { return };
    // SAFETY: the fiber runs on this very thread, and none of our code that changes the list touches a
    // guest's memory.
    let mut frames = unsafe { (&*fiber.frames.get()).iter() };
    if frames.any(|frame| (frame.guard.0..frame.guard.1).contains(&address)) {
        fiber.overrun();
    }
}
