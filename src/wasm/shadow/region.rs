//! Regions of a guest's memory for its fibers' stacks: where they come from, and their reuse.
//!
//! They are made many at a time, side by side, each with a guard below. A region that is given back is the
//! next to be taken: its pages are in the cache. What a former fiber left in it stays there, as on any
//! stack. Regions are never given back to the guest.

use std::io;

use wasmtime::{Engine, Memory, Store, TypedFunc};
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_environ::{HostPtr, PtrSize};

use super::Plan;
use crate::sys::memory::{self, Guard};
use crate::sys::tripwire::Span;

/// The unit in which memories grow.
pub const WASM_PAGE: u64 = 65536;
/// All that a 32-bit guest can reach.
const REACH: u64 = 1 << 32;
/// Regions that are made at a time, unless so many are there already.
const AT_LEAST: u32 = 4;
const AT_MOST: u32 = 512;

/// Where regions come from, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The memory is grown.
    Grow,
    /// The guest's own functions: `malloc` and `free`, or what they are called.
    Allocator { allocate: String, release: String },
}

/// The guest's functions.
pub struct Allocator {
    pub allocate: TypedFunc<i32, i32>,
    /// Only ever called when a guard could not be made.
    pub release: TypedFunc<i32, ()>,
}

/// Wasmtime's `VMMemoryDefinition`.
#[derive(Clone, Copy)]
pub struct Definition(pub *const u8);

impl Definition {
    /// # Safety
    ///
    /// The memory's store lives.
    pub unsafe fn base(self) -> *mut u8 {
        let at = usize::from(HostPtr.vm_memory_definition().base());
        // SAFETY: per contract; the offset is that of this very version.
        unsafe { self.0.add(at).cast::<*mut u8>().read() }
    }

    /// # Safety
    ///
    /// As for `base`.
    pub unsafe fn length(self) -> usize {
        let at = usize::from(HostPtr.vm_memory_definition().current_length());
        // SAFETY: as above.
        unsafe { self.0.add(at).cast::<usize>().read() }
    }
}

/// A stack in linear memory: `[low, low + size)`.
#[derive(Debug)]
pub struct Region {
    pub low: u32,
    pub size: u32,
    slab: u32,
    index: u32,
}

impl Region {
    /// Where a stack begins. (A region never ends at 2^32.)
    pub fn top(&self) -> u32 {
        self.low + self.size
    }
}

/// The guards of regions that were made together.
struct Guards {
    span: Span,
    /// How many of their pages had been opened when all were closed.
    seen: u64,
}

/// The regions of one instance.
pub struct Regions {
    memory: Memory,
    definition: Definition,
    /// `None`: the memory is grown.
    allocator: Option<Allocator>,
    /// Rounded up.
    default_size: u32,
    guard: u32,
    how: Guard,
    /// The most bytes that the memory may have.
    limit: u64,
    /// By size; of each the last given back is the first taken.
    free: Vec<(u32, Vec<Region>)>,
    /// The guards of what was made at a time; `None` if there are none.
    slabs: Vec<Option<Guards>>,
    /// Regions made so far.
    made: u32,
}

impl Regions {
    pub fn new(
        store: &mut Store<WasmtimeStoreData>,
        memory: Memory,
        definition: Definition,
        allocator: Option<Allocator>,
        plan: &Plan,
        how: Guard,
    ) -> Result<Regions, String> {
        let most = memory.ty(&*store).maximum().map_or(REACH, |pages| pages * WASM_PAGE);
        let too_large = || format!("a guard of {} bytes is too large", plan.guard_size);
        let guard = plan.guard_size.checked_next_multiple_of(page()).ok_or_else(too_large)?;
        // A memory that is moved leaves its guards in what is then somebody else's.
        if guard > 0 && may_move(store.engine(), most) {
            return Err("the memory may move when it grows, so stacks in it can't have guards: set \
                        the size of guards to 0"
                .into());
        }
        let regions = Regions {
            memory,
            definition,
            allocator,
            default_size: rounded(plan.stack_size),
            guard,
            how,
            limit: most.min(REACH),
            free: Vec::new(),
            slabs: Vec::new(),
            made: 0,
        };
        regions.check(plan.stack_size)?;
        Ok(regions)
    }

    /// The largest region that could ever be made.
    pub fn largest(&self) -> u64 {
        self.limit.saturating_sub(WASM_PAGE + u64::from(self.guard))
    }

    /// Could there be a region of this size?
    fn check(&self, size: u32) -> Result<(), String> {
        if size == 0 || u64::from(size) > self.largest() {
            return Err(format!(
                "a stack of {size} bytes and its guard do not fit into a memory of {} at the most",
                self.limit
            ));
        }
        Ok(())
    }

    fn rounded(&self, size: Option<u32>) -> u32 {
        size.map_or(self.default_size, rounded)
    }

    /// Must the guest be called for a region of this size?
    pub fn calls_guest(&self, size: Option<u32>) -> bool {
        let size = self.rounded(size);
        self.allocator.is_some() && !self.free.iter().any(|f| f.0 == size && !f.1.is_empty())
    }

    /// A region of `size` bytes, or of the usual size.
    pub fn take(
        &mut self,
        store: &mut Store<WasmtimeStoreData>,
        size: Option<u32>,
    ) -> Result<Region, String> {
        let rounded = self.rounded(size);
        if let Some(region) = self.class(rounded).pop() {
            return Ok(region);
        }
        self.check(rounded)?;
        let many = self.made.clamp(AT_LEAST, AT_MOST);
        let made = self.make(store, rounded, many).or_else(|_| self.make(store, rounded, 1));
        made.map_err(|e| format!("no shadow stack of {rounded} bytes: {e}"))?;
        self.class(rounded).pop().ok_or_else(|| "no shadow stack was made".into())
    }

    /// Makes sure that `count` regions of the usual size are there.
    pub fn reserve(&mut self, store: &mut Store<WasmtimeStoreData>, count: usize) -> Result<(), String> {
        let size = self.rounded(None);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count > 0 {
            let made = self.make(store, size, count);
            made.map_err(|e| format!("no {count} shadow stacks of {size} bytes: {e}"))?;
        }
        Ok(())
    }

    /// Takes a region back.
    pub fn put(&mut self, region: Region) {
        if let Some(guards) = &self.slabs[region.slab as usize]
            && guards.span.opened() > 0
            && guards.span.close(region.index as usize).is_err()
        {
            // Without its guard it is of no use.
            return;
        }
        self.class(region.size).push(region);
    }

    /// Puts guards back that were opened.
    #[cold]
    pub fn close_opened(&mut self) {
        for guards in self.slabs.iter_mut().flatten() {
            guards.seen = guards.span.close_opened(guards.seen);
        }
    }

    /// The addresses of the guard below a region.
    pub fn guard_of(&self, region: &Region) -> (usize, usize) {
        // SAFETY: whoever asks owns the store.
        let low = unsafe { self.definition.base() } as usize + region.low as usize;
        if self.slabs[region.slab as usize].is_some() { (low - self.guard as usize, low) } else { (low, low) }
    }

    fn class(&mut self, size: u32) -> &mut Vec<Region> {
        let at = self.free.iter().position(|f| f.0 == size).unwrap_or_else(|| {
            self.free.push((size, Vec::new()));
            self.free.len() - 1
        });
        &mut self.free[at].1
    }

    /// Makes regions, at least `count`.
    fn make(&mut self, store: &mut Store<WasmtimeStoreData>, size: u32, count: u32) -> Result<(), String> {
        let stride = u64::from(size) + u64::from(self.guard);
        let bytes = stride * u64::from(count);
        let (start, bytes, block) = self.obtain(store, bytes)?;
        // The end of what is reachable is no place for a stack's top, which would be 0.
        let end = (start + bytes).min(REACH - 1);
        let count = (end - start) / stride;
        let span = self.guards(start, count, stride);
        let span = match span {
            Ok(span) => span,
            Err(e) => {
                self.abandon(store, block);
                return Err(format!("no guard: {e}"));
            }
        };
        self.slabs.push(span);
        let (slab, guard) = ((self.slabs.len() - 1) as u32, u64::from(self.guard));
        // The lowest is taken first.
        for index in (0..count).rev() {
            let low = (start + index * stride + guard) as u32;
            self.class(size).push(Region { low, size, slab, index: index as u32 });
        }
        self.made = self.made.saturating_add(count as u32);
        Ok(())
    }

    /// Memory that starts at a page of the machine: where it is, how much, and what the allocator calls it.
    fn obtain(
        &self,
        store: &mut Store<WasmtimeStoreData>,
        bytes: u64,
    ) -> Result<(u64, u64, u32), String> {
        match &self.allocator {
            None => {
                let pages = bytes.div_ceil(WASM_PAGE);
                let old = self.memory.grow(&mut *store, pages).map_err(|e| format!("{e:#}"))?;
                Ok((old * WASM_PAGE, pages * WASM_PAGE, 0))
            }
            Some(allocator) => {
                let page = u64::from(page());
                let asked = i32::try_from(bytes + page).map_err(|_| "too much for the allocator")?;
                let at = allocator.allocate.call(&mut *store, asked);
                let at = at.map_err(|e| format!("the guest's allocator failed: {e:#}"))? as u32;
                let end = u64::from(at) + asked as u64;
                if at == 0 || end > self.memory.data_size(&*store) as u64 {
                    return Err(format!("the guest's allocator has no {asked} bytes"));
                }
                Ok((u64::from(at).next_multiple_of(page), bytes, at))
            }
        }
    }

    /// Gives memory back that could not be used. What has been grown stays, unused.
    fn abandon(&self, store: &mut Store<WasmtimeStoreData>, block: u32) {
        if let Some(allocator) = &self.allocator {
            // There is an error to report already.
            let _ = allocator.release.call(store, block as i32);
        }
    }

    fn guards(&self, start: u64, count: u64, stride: u64) -> io::Result<Option<Guards>> {
        if self.guard == 0 {
            return Ok(None);
        }
        // SAFETY: the store is the caller's. The range lies in the memory, which does not move (`new`)
        // and lives as long as the store, before whose end this is dropped; it was made just now, so nothing is in it.
        unsafe {
            let at = self.definition.base().add(start as usize);
            let span = Span::new(at, count as usize, stride as usize, self.guard as usize, self.how)?;
            Ok(Some(Guards { span, seen: 0 }))
        }
    }
}

/// May an unshared memory of at most so many bytes be moved when it grows? As Wasmtime decides it
/// (`wasmtime_environ::Memory::memory_may_move`), from what the engine's configuration says of itself; where the pooling
/// allocator rules a move out this still says yes.
pub fn may_move(engine: &Engine, most: u64) -> bool {
    let config = format!("{:?}", engine.config());
    let value = |name: &str| config.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix(": "));
    let value = |name| value(name).map(|value| value.trim_end_matches([' ', '}']));
    // Those that are not shown were not set; these are the defaults of 64-bit machines.
    let reservation = value("memory_reservation").map_or(Some(REACH), |bytes| bytes.parse().ok());
    value("memory_may_move") != Some("false") && reservation.is_none_or(|bytes| most > bytes)
}

/// Up to a page. What is too large for that is refused as it is.
fn rounded(size: u32) -> u32 {
    size.checked_next_multiple_of(page()).unwrap_or(size)
}

fn page() -> u32 {
    memory::page() as u32
}
