//! The two ways to run a program: alone, by Wasmtime on a plain thread, in a store of its own; and as one of many
//! fibers of an instance.

use super::host::{HOSTS, World, invoke, value};
use super::outcome::{Outcome, Trap};
use super::program::REGION;
use crate::support::{Fiber, Options, Outcome as Ended, Rng, Runtime, ok};
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ptr::null_mut;
use std::time::Duration;

/// Only a lost wake-up can use it up.
const LIMIT: Duration = Duration::from_secs(120);
/// More frames than any of the programs has, but for those that overflow the stack.
const FRAMES: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The arguments of a run: which region is its own, and the seed.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub region: usize,
    pub seed: i64,
}

impl Job {
    fn args(self) -> [bop::wasmtime_val_t; 2] {
        [value(bop::WASMTIME_I32, (self.region * REGION) as u64), value(bop::WASMTIME_I64, self.seed as u64)]
    }
}

/// Wasmtime's defaults, but for backtraces that are never cut.
pub fn config() -> Box<bop::wasm_config_t> {
    let config = Box::into_raw(bop::wasm_config_new());
    // SAFETY: C's box is a structure of this one field (`src/wasm/bridge.rs` sees to that); C has no setter.
    unsafe {
        (*config.cast::<wasmtime::Config>()).wasm_backtrace_max_frames(Some(FRAMES));
        Box::from_raw(config)
    }
}

/// A module that was compiled and linked.
pub struct Guest(*mut bop::wasmtime_instance_pre_t);

// SAFETY: Wasmtime's `InstancePre`, which is `Sync` if the linked host functions are: their world is made of atomics.
unsafe impl Sync for Guest {}

impl Guest {
    /// The world must outlive the guest and what is made from it.
    pub fn new(engine: &bop::wasm_engine_t, text: &str, world: &World) -> Guest {
        let mut linker = bop::wasmtime_linker_new(engine);
        let mut wasm = bop::wasm_byte_vec_t::default();
        let (mut module, mut pre) = (null_mut(), null_mut());
        let env = (&raw const *world).cast_mut().cast();
        let types = |kinds: &[u8]| -> bop::wasm_valtype_vec_t {
            let types = kinds.iter().map(|&kind| Some(bop::wasm_valtype_new(kind)));
            types.collect::<Vec<_>>().into()
        };
        // SAFETY: every pointer and length belongs to a live slice; the module is ours to free.
        unsafe {
            for host in &HOSTS {
                let ty = bop::wasm_functype_new(&mut types(host.params), &mut types(host.result.as_slice()));
                let (at, len) = (host.name.as_ptr(), host.name.len());
                let module = b"host".as_ptr();
                ok(bop::wasmtime_linker_define_func(&mut linker, module, 4, at, len, &ty, host.call, env, None));
            }
            ok(bop::wasmtime_wat2wasm(text.as_ptr(), text.len(), &mut wasm));
            let bytes = wasm.as_slice();
            ok(bop::wasmtime_module_new(engine, bytes.as_ptr().cast(), bytes.len(), &mut module));
            ok(bop::wasmtime_linker_instantiate_pre(&linker, &*module, &mut pre));
            drop(Box::from_raw(module));
        }
        Guest(pre)
    }

    fn instantiate(&self, engine: &bop::wasm_engine_t) -> Instance {
        let mut store = bop::wasmtime_store_new(engine, null_mut(), None);
        let mut instance = MaybeUninit::<wasmtime::Instance>::uninit();
        let mut trap = null_mut();
        // SAFETY: the instance is written when there is neither error nor trap, and only used then.
        let instance = unsafe {
            let (context, out) = (bop::wasmtime_store_context(&mut store), &mut *instance.as_mut_ptr());
            ok(bop::wasmtime_instance_pre_instantiate(&*self.0, context, out, &mut trap));
            assert!(trap.is_null(), "instantiation trapped");
            instance.assume_init()
        };
        let mut context = bop::wasmtime_store_context(&mut store);
        let run = instance.get_func(&mut context, "run").expect("run");
        let memory = instance.get_memory(&mut context, "memory").expect("memory");
        let (memory, size) = (memory.data_ptr(&context), memory.data_size(&context));
        Instance { store, run, memory, size }
    }

    /// One run, by a thread that knows nothing of fibers.
    pub fn alone(&self, engine: &bop::wasm_engine_t, job: Job) -> Outcome {
        let mut instance = self.instantiate(engine);
        let context = bop::wasmtime_store_context(&mut instance.store);
        let end = invoke(context, &instance.run, &job.args());
        let end = end.map(|bits| bits as i64).map_err(|failure| failure.read());
        // SAFETY: the store lives and runs nothing.
        let memory = unsafe { std::slice::from_raw_parts(instance.memory, instance.size) };
        Outcome { end, region: own_region(memory, job) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: owned, last use.
        unsafe { bop::wasmtime_instance_pre_delete(Box::from_raw(self.0)) };
    }
}

struct Instance {
    store: Box<bop::wasmtime_store_t>,
    run: wasmtime::Func,
    /// Never moves: the guests can't grow it.
    memory: *mut u8,
    size: usize,
}

fn own_region(memory: &[u8], job: Job) -> Vec<u8> {
    memory[job.region * REGION..][..REGION].to_vec()
}

/// All jobs alone, on two threads.
pub fn all_alone(guest: &Guest, engine: &bop::wasm_engine_t, jobs: &[Job]) -> Vec<Outcome> {
    let run = |jobs: &[Job]| jobs.iter().map(|&job| guest.alone(engine, job)).collect::<Vec<_>>();
    let (first, second) = jobs.split_at(jobs.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(second));
        [run(first), other.join().unwrap()].concat()
    })
}

/// An instance in a store that a runtime looks after.
struct Shared {
    store: *mut bop::bop_store_t,
    run: wasmtime::Func,
    memory: *mut u8,
    size: usize,
}

impl Shared {
    fn new(rt: &Runtime, guest: &Guest) -> Shared {
        let Instance { store, run, memory, size } = guest.instantiate(rt.engine());
        let mut out = null_mut();
        // SAFETY: `bop_store_new` takes the store.
        ok(unsafe { bop::bop_store_new(rt.0, Box::into_raw(store), &mut out) });
        Shared { store: out, run, memory, size }
    }

    fn spawn(&self, job: Job) -> Fiber {
        let (args, mut out) = (job.args(), null_mut());
        let options = Options::new(&format!("region {}", job.region), 0);
        // SAFETY: every pointer is live; the arguments are copied.
        ok(unsafe { bop::bop_spawn(self.store, &self.run, args.as_ptr(), 2, options.0, &mut out) });
        Fiber(out)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the last use of the handle.
        unsafe { bop::bop_store_delete(self.store) };
    }
}

fn end(fiber: &Fiber) -> Result<i64, Trap> {
    match fiber.join_within(LIMIT) {
        Ok(Ended::Returned) => Ok(fiber.result_i64()),
        Ok(Ended::Trapped) => {
            // SAFETY: the handle is live; the trap of a fiber that trapped is ours, and came from a box.
            let trap = unsafe { Box::from_raw(bop::bop_fiber_take_trap(fiber.0)) };
            Err(Trap::read(&trap))
        }
        other => panic!("fiber {} ended with {other:?}: {:?}", fiber.name(), fiber.take_trap()),
    }
}

/// Each guest once, with all its jobs as fibers of that one instance; the guests beside each other, all fibers
/// spawned in random order. Gives the outcomes in the order of the jobs.
pub fn together(rt: &Runtime, guests: &[(&Guest, &[Job])], rng: &mut Rng) -> Vec<Vec<Outcome>> {
    let stores: Vec<Shared> = guests.iter().map(|(guest, _)| Shared::new(rt, guest)).collect();
    let all = guests.iter().enumerate().flat_map(|(at, (_, jobs))| (0..jobs.len()).map(move |job| (at, job)));
    let mut order: Vec<(usize, usize)> = all.collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at as u32 + 1) as usize);
    }
    let mut fibers: Vec<_> =
        order.into_iter().map(|(at, job)| ((at, job), stores[at].spawn(guests[at].1[job]))).collect();
    fibers.sort_by_key(|(place, _)| *place);
    let ends: Vec<_> = fibers.iter().map(|(place, fiber)| (place.0, end(fiber))).collect();
    let mut outcomes: Vec<Vec<Outcome>> = stores.iter().map(|_| Vec::new()).collect();
    for (at, end) in ends {
        let (store, job) = (&stores[at], guests[at].1[outcomes[at].len()]);
        // SAFETY: the store lives, and its fibers have ended.
        let memory = unsafe { std::slice::from_raw_parts(store.memory, store.size) };
        outcomes[at].push(Outcome { end, region: own_region(memory, job) });
    }
    outcomes
}
