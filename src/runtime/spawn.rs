//! Spawning: the checks, the stack, the start.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use wasmtime::{Engine, Func, InstancePre};
use wasmtime_c_api::{WasmtimeStoreData, wasmtime_store_t, wasmtime_val_t, wasmtime_val_union};

use super::Runtime;
use super::wait::{Status, Waiter};
use crate::sched::Worker;
use crate::sys::clock;
use crate::wasm::end::{End, Values};
use crate::wasm::fiber::{Body, Fiber};
use crate::wasm::guest::{self, Call, Env, Fresh, Setup};
use crate::wasm::limits::{FiberDeadline, Meter, Stop};
use crate::wasm::room::Room;
use crate::wasm::signature::{Known, Signature};
use crate::wasm::strand::Strand;
use crate::wasm::bridge;

/// Options of a spawn.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    /// `None`: the runtime's.
    pub stack_size: Option<usize>,
    /// Bytes of its stack in shared instances; `None`: as they were shared.
    pub shadow_stack: Option<u32>,
    /// When the fiber shall end at the latest.
    pub deadline: Option<u64>,
    /// What it may use of its time on a processor, in nanoseconds; `u64::MAX` only meters it.
    pub budget: Option<u64>,
    /// How long to wait for room, if there are as many fibers as there may be; `None`: not at all.
    pub patience: Option<u64>,
    /// Bytes that each memory of a fresh store may have, and elements of each table.
    pub memory: Option<u64>,
    pub table: Option<u64>,
    /// The host's descriptors for standard input, output and errors of a guest in a fresh store; -1 for none.
    pub stdio: [i32; 3],
    /// A guest spawns it.
    pub of_guest: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: String::new(),
            stack_size: None,
            shadow_stack: None,
            deadline: None,
            budget: None,
            patience: None,
            memory: None,
            table: None,
            stdio: [-1; 3],
            of_guest: false,
        }
    }
}

/// What C calls a `bop_host_fn_t`.
pub type HostFn = unsafe extern "C" fn(env: *mut std::ffi::c_void) -> i64;

fn start(strand: &Arc<Strand>, body: Body, options: &Options) -> Result<Arc<Fiber>, String> {
    let shared = &*strand.shared;
    let size = options.stack_size.unwrap_or(shared.limits.stack_size);
    shared.limits.check_stack(size)?;
    match options.patience {
        None => admit(strand).map_err(|full| full.why)?,
        Some(deadline) => wait_for_room(strand, deadline)?,
    }
    // Only now: waiting may have brought us to another thread.
    let worker = shared.scheduler.worker_here();
    match prepare(strand, body, options, size, worker) {
        Ok(fiber) => {
            fiber.start(worker);
            Ok(fiber)
        }
        Err(e) => {
            shared.live.vacate();
            strand.take_back_fiber();
            Err(e)
        }
    }
}

/// There are as many fibers as there may be, in the store or in the runtime.
struct Full<'a> {
    why: String,
    room: &'a Room,
}

/// Counts one more fiber.
fn admit(strand: &Strand) -> Result<(), Full<'_>> {
    let shared = &*strand.shared;
    // The store first: one that is full must not, for a moment, take a place of the runtime's from others.
    strand.add_fiber().map_err(|why| Full { why, room: &strand.room })?;
    if !shared.live.enter() {
        strand.take_back_fiber();
        let why = format!("the limit of {} fibers is reached", shared.limits.max_fibers);
        return Err(Full { why, room: &shared.live.room });
    }
    Ok(())
}

/// The same; waits for room. Those who wait come in order, and before those who come later and would wait too.
fn wait_for_room(strand: &Strand, deadline: u64) -> Result<(), String> {
    let free = strand.room.is_free() && strand.shared.live.room.is_free();
    let mut full = match if free { admit(strand) } else { Err(in_turn(strand)) } {
        Ok(()) => return Ok(()),
        Err(full) => full,
    };
    // Was woken in that room, and came too late.
    let mut again: Option<&Room> = None;
    loop {
        let waiter = match may_wait(strand, deadline) {
            Ok(waiter) => waiter,
            Err(why) => {
                again.inspect(|room| room.next());
                return Err(format!("{}, and waiting for room failed: {why}", full.why));
            }
        };
        let (waker, room) = (waiter.waker(), full.room);
        let name = Arc::as_ptr(&waker).cast::<()>();
        if room.wait(waker, again.take().is_some()) {
            match admit(strand) {
                Ok(()) => {
                    room.leave(name);
                    // There may be more room than for this one, made when nobody else waited.
                    room.made();
                    return Ok(());
                }
                // It is the other limit now.
                Err(now) if !std::ptr::eq(now.room, room) => {
                    room.leave(name);
                    full = now;
                    continue;
                }
                Err(_) => {}
            }
        }
        let status = waiter.wait(Some(deadline), || !room.waits(name));
        if status != Status::Ok {
            room.leave(name);
            return Err(format!("{}, and waiting for room failed: {status}", full.why));
        }
        match admit(strand) {
            Ok(()) => {
                room.next();
                return Ok(());
            }
            Err(now) if std::ptr::eq(now.room, room) => (full, again) = (now, Some(room)),
            Err(now) => {
                // The room that it was woken for is for another one.
                room.next();
                full = now;
            }
        }
    }
}

/// Who calls, if it may wait for room in this store.
fn may_wait(strand: &Strand, deadline: u64) -> Result<Waiter, String> {
    if let Some(closed) = strand.closed() {
        return Err(closed);
    }
    if strand.doors.held_here() {
        return Err("this thread has entered the store".into());
    }
    Waiter::here(Some(deadline)).map_err(|status| status.to_string())
}

/// What keeps one out that would overtake others.
fn in_turn(strand: &Strand) -> Full<'_> {
    let room = if strand.room.is_free() { &strand.shared.live.room } else { &strand.room };
    Full { why: "others wait for room".into(), room }
}

/// W9.
const ONE_FIBER: &str = "the store has a GC heap, which allows one fiber at a time: a collection would not \
                         see what a suspended one refers to";

/// A fiber that is counted, listed, and ready to start.
fn prepare(
    strand: &Arc<Strand>,
    body: Body,
    options: &Options,
    size: usize,
    worker: Option<&Worker<Strand>>,
) -> Result<Arc<Fiber>, String> {
    let shared = &*strand.shared;
    if let Some(closed) = strand.closed() {
        return Err(closed);
    }
    // Partner: the fence in `Strand::may_suspend`. Either we see the heap that a sibling has made, or
    // the sibling sees that it is not alone, and stays where it is (W9). A sibling that spawns knows.
    let local = worker.map(|worker| worker.local());
    if !local.is_some_and(|local| local.owns(strand)) {
        fence(Ordering::SeqCst);
    }
    if strand.fibers() > 1 && strand.has_gc_heap() {
        return Err(ONE_FIBER.into());
    }
    let stack = match local {
        Some(local) => local.stacks.get(&shared.pool, size),
        None => shared.pool.get(size),
    };
    let stack = stack.map_err(|e| format!("no memory for a fiber's stack of {size} bytes: {e}"))?;
    let meter = options.budget.map(|budget| Box::new(Meter::new(Some(budget))));
    let metered = meter.is_some();
    let fiber = Fiber::new(Arc::clone(strand), &options.name, stack, body, options.of_guest, meter, worker);
    if !shared.live.list(&fiber, worker) {
        // First: what drops the body may call the host, which may come back on another thread.
        shared.live.unlist(&fiber, worker);
        shared.look_for_the_end();
        fiber.discard();
        return Err("the runtime is shut down".into());
    }
    if strand.policy.poison().is_some() {
        // Since we looked: it may not have been in the list of those to be cancelled.
        fiber.cancel();
    }
    if strand.is_expired() {
        fiber.stop(Stop::Deadline);
    }
    if metered {
        strand.metered.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(deadline) = options.deadline {
        if deadline <= clock::now() {
            // It shall not even begin.
            fiber.stop(Stop::Deadline);
        }
        let timer = FiberDeadline(Arc::downgrade(&fiber));
        fiber.deadline.set(Some(shared.scheduler.time(deadline, Arc::new(timer))));
    }
    Ok(fiber)
}

/// Runs `func` in the strand's store.
///
/// # Safety
///
/// `func` is readable, and a function (of any store that lives) or C's null function; each
/// argument's union holds what its kind says.
pub unsafe fn call(
    strand: &Arc<Strand>,
    func: *const Func,
    args: &[wasmtime_val_t],
    options: &Options,
) -> Result<Arc<Fiber>, String> {
    // SAFETY: per contract.
    match unsafe { bridge::store_of(func) } {
        0 => return Err("func is the null function".into()),
        id if id != strand.store_id => return Err("func belongs to another store".into()),
        _ => {}
    }
    // SAFETY: it is no null function.
    let func = unsafe { *func };
    let signature = strand.signature(func);
    // SAFETY: per contract.
    let args = unsafe { signature.copy_args(args, strand.store_id)? };
    if strand.fibers() > 0 && strand.has_gc_heap() {
        // Seen before the sibling could see a second fiber, which might keep it from suspending.
        return Err(ONE_FIBER.into());
    }
    if let Some(size) = options.shadow_stack {
        strand.check_shadow_stack(size)?;
    }
    let call = Call { func, args, signature, stack: options.shadow_stack };
    start(strand, Body::Call(call), options)
}

/// Runs `func`, of the strand's store, with one i32, as the guest wants it that runs.
pub fn guest_call(
    strand: &Arc<Strand>,
    func: Func,
    arg: i32,
    signature: Known,
) -> Result<Arc<Fiber>, String> {
    let arg = wasmtime_val_t { kind: wasmtime_c_api::WASMTIME_I32, of: wasmtime_val_union { i32: arg } };
    if strand.has_gc_heap() {
        return Err(ONE_FIBER.into());
    }
    if !strand.guest_may_spawn() {
        return Err("as many fibers as a guest may spawn are there".into());
    }
    let call = Call { func, args: Values::from_buf([arg]), signature, stack: None };
    start(strand, Body::Call(call), &Options { of_guest: true, ..Options::default() })
}

impl Runtime {
    /// Hands a store to this runtime.
    pub fn store(&self, mut own: Box<wasmtime_store_t>) -> Result<Arc<Strand>, String> {
        if !Engine::same(bridge::store(&mut own).engine(), &self.shared.engine) {
            return Err("the store was made with another engine".into());
        }
        Strand::with_store(Arc::clone(&self.shared), own)
    }

    /// Runs a function of the host.
    pub fn host(&self, call: HostFn, env: Env, options: &Options) -> Result<Arc<Fiber>, String> {
        let body = Body::Other(Box::new(move |fiber: &Fiber| {
            let env = env;
            if fiber.cancelled() {
                return End::plain(fiber.stopped_outcome());
            }
            // SAFETY: the host gave both for this call.
            let i64 = unsafe { call(env.data) };
            let kind = wasmtime_c_api::WASMTIME_I64;
            End::returned(Values::from_buf([wasmtime_val_t { kind, of: wasmtime_val_union { i64 } }]))
        }));
        start(&Strand::single(Arc::clone(&self.shared)), body, options)
    }

    /// Runs an export of a new instance in a store of its own.
    ///
    /// # Safety
    ///
    /// Each argument's union holds what its kind says.
    pub unsafe fn instance(
        &self,
        pre: &InstancePre<WasmtimeStoreData>,
        export: &str,
        args: &[wasmtime_val_t],
        setup: Option<Setup>,
        env: Env,
        options: &Options,
    ) -> Result<Arc<Fiber>, String> {
        if !Engine::same(pre.module().engine(), &self.shared.engine) {
            return Err("the module was compiled for another engine".into());
        }
        let Some(found) = pre.module().get_export(export) else {
            return Err(format!("the module has no export {export:?}"));
        };
        let Some(ty) = found.func() else {
            return Err(format!("the export {export:?} is not a function"));
        };
        let signature = Signature::of(ty);
        // SAFETY: per contract.
        let args = unsafe { signature.copy_args(args, 0)? };
        let plan = Fresh {
            pre: pre.clone(),
            export: export.into(),
            args,
            signature,
            setup,
            env,
            memory: options.memory,
            table: options.table,
        };
        let strand = Strand::single(Arc::clone(&self.shared));
        strand.set_stdio(options.stdio);
        start(&strand, guest::instance(plan), options)
    }
}
