//! Wasmtime's own way: `call_async` futures, polled by the cheapest executor there can be, or run
//! as tasks of tokio.

use crate::measure::{MARKS, now};
use crate::shared::{END, LAP, PARKER, comes, noted, told};
use crate::yields::{GUEST, WARM_UP};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use wasmtime::{
    Caller, Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Store, TypedFunc,
};

/// An epoch deadline that never comes. The rival's guests are compiled with epoch checks as BOP's
/// are, so that both run the same code; but nobody ticks, which is to the rival's advantage.
const FAR: u64 = u64::MAX / 2;

/// The future of a host function that gives up one turn.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        // No wake-up: the executors here poll everything in turn.
        Poll::Pending
    }
}

/// What the guest's import `yield` does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Import {
    Yields,
    /// Nothing at all, and it is no async function.
    Returns,
}

struct Guest {
    store: Store<()>,
    func: TypedFunc<(i32, i32), ()>,
}

/// Guests in stores of their own. There is no other way here: a store whose call is suspended
/// can't begin another.
pub struct Rival {
    guests: Vec<Guest>,
}

impl Rival {
    /// `epochs` makes every epoch check yield.
    pub fn new(count: usize, export: &str, import: Import, epochs: bool) -> Rival {
        let engine = engine(false);
        let module = Module::new(&engine, GUEST).unwrap();
        let mut linker: Linker<()> = Linker::new(&engine);
        linker.func_wrap("host", "mark", |what: i32| MARKS.hit(what)).unwrap();
        match import {
            Import::Yields => {
                linker
                    .func_wrap_async("host", "yield", |_: Caller<'_, ()>, _: ()| {
                        Box::new(YieldOnce(false))
                    })
                    .unwrap();
            }
            Import::Returns => {
                linker.func_wrap("host", "yield", || {}).unwrap();
            }
        }
        let pre = linker.instantiate_pre(&module).unwrap();
        let guest = |_| {
            let mut store = Store::new(&engine, ());
            if epochs {
                store.epoch_deadline_async_yield_and_update(0);
            } else {
                store.set_epoch_deadline(FAR);
            }
            let instance = block_on(pre.instantiate_async(&mut store)).unwrap();
            let func = instance.get_typed_func(&mut store, export).unwrap();
            Guest { store, func }
        };
        Rival { guests: (0..count).map(guest).collect() }
    }

    /// Nanoseconds that all guests together take for their laps, shared out among threads, and
    /// how often one was suspended.
    pub fn time(&mut self, threads: usize, laps: i32) -> (f64, u64) {
        MARKS.reset();
        let share = self.guests.len().div_ceil(threads);
        let mut suspended = 0;
        if threads == 1 {
            suspended = poll_all(&mut self.guests, laps);
        } else {
            std::thread::scope(|scope| {
                for guests in self.guests.chunks_mut(share) {
                    scope.spawn(move || poll_all(guests, laps));
                }
            });
        }
        (MARKS.elapsed(), suspended)
    }

    /// Runs every guest to its first suspension, and leaves it there until the process ends.
    pub fn suspend_all(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let guests: &'static mut [Guest] = std::mem::take(&mut self.guests).leak();
        for guest in guests {
            let mut call = Box::pin(guest.func.call_async(&mut guest.store, (1, 1)));
            assert!(call.as_mut().poll(&mut cx).is_pending(), "the guest did not wait");
            std::mem::forget(call);
        }
    }
}

/// Polls one call per guest from a plain list until all have ended; returns how often a call was
/// pending.
fn poll_all(guests: &mut [Guest], laps: i32) -> u64 {
    let mut calls: Vec<_> = guests
        .iter_mut()
        .map(|guest| Box::pin(guest.func.call_async(&mut guest.store, (WARM_UP, laps))))
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    let mut pending = 0;
    while !calls.is_empty() {
        calls.retain_mut(|call| match call.as_mut().poll(&mut cx) {
            Poll::Pending => {
                pending += 1;
                true
            }
            Poll::Ready(result) => {
                result.unwrap();
                false
            }
        });
    }
    pending
}

/// Calls that wait in random order, each in a store of its own.
pub struct Parked {
    guests: Vec<(Store<()>, TypedFunc<u32, u32>)>,
}

impl Parked {
    pub fn new(count: u32) -> Parked {
        let engine = engine(false);
        let module = Module::new(&engine, PARKER).unwrap();
        let mut linker: Linker<()> = Linker::new(&engine);
        linker
            .func_wrap_async("host", "park", |_: Caller<'_, ()>, (me, noted): (u32, u32)| {
                comes(me, noted);
                Box::new(async move {
                    YieldOnce(false).await;
                    told(LAP.load(Relaxed), me)
                })
            })
            .unwrap();
        let pre = linker.instantiate_pre(&module).unwrap();
        let guest = |_| {
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(FAR);
            let instance = block_on(pre.instantiate_async(&mut store)).unwrap();
            let func = instance.get_typed_func(&mut store, "parks").unwrap();
            (store, func)
        };
        Parked { guests: (0..count).map(guest).collect() }
    }

    /// Nanoseconds for polling all calls, once per lap in its order.
    pub fn time(&mut self, orders: &[Vec<u32>]) -> f64 {
        let guests = (0..).zip(&mut self.guests);
        let calls = guests.map(|(me, (store, func))| Box::pin(func.call_async(store, me)));
        let mut calls: Vec<_> = calls.collect();
        let mut cx = Context::from_waker(Waker::noop());
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut cx).is_pending(), "the guest did not wait");
        }
        let mut time = 0;
        for (lap, order) in (1..).zip(orders) {
            LAP.store(lap, Relaxed);
            let start = now();
            for &me in order {
                let poll = calls[me as usize].as_mut().poll(&mut cx);
                assert!(poll.is_pending(), "the guest did not wait again");
            }
            time += now() - start;
        }
        LAP.store(END, Relaxed);
        for (me, call) in (0..).zip(calls) {
            assert_eq!(block_on(call).unwrap(), noted(orders.len() as u32, me), "call {me}");
        }
        time as f64
    }
}

/// Polls one future until it is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

/// An engine as BOP's is by default; `pool` reuses instances and stacks, which BOP's does not ask
/// of Wasmtime.
fn engine(pool: bool) -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true);
    if pool {
        let mut pool = PoolingAllocationConfig::new();
        // One call runs at a time; the defaults would reserve terabytes of addresses.
        pool.total_core_instances(16);
        pool.total_memories(16);
        pool.total_tables(16);
        pool.total_stacks(16);
        pool.total_gc_heaps(16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    Engine::new(&config).unwrap()
}

/// Calls as tasks on tokio's current-thread runtime, spawned and joined by a task.
pub struct Tokio {
    rt: tokio::runtime::Runtime,
    engine: Engine,
    pre: Arc<InstancePre<()>>,
}

impl Tokio {
    /// `text` is a module without imports that exports `nothing`.
    pub fn new(text: &str, pool: bool) -> Tokio {
        let engine = engine(pool);
        let module = Module::new(&engine, text).unwrap();
        let pre = Linker::new(&engine).instantiate_pre(&module).unwrap();
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Tokio { rt, engine, pre: Arc::new(pre) }
    }

    /// Nanoseconds per task that calls the function in a fresh store and instance.
    pub fn fresh(&self, calls: u32) -> f64 {
        let (engine, pre) = (self.engine.clone(), Arc::clone(&self.pre));
        self.rt.block_on(async move {
            let spawner = tokio::spawn(async move {
                let start = now();
                for _ in 0..calls {
                    let (engine, pre) = (engine.clone(), Arc::clone(&pre));
                    let task = tokio::spawn(async move {
                        let (mut store, func) = instantiate(&engine, &pre).await;
                        func.call_async(&mut store, ()).await.unwrap();
                    });
                    task.await.unwrap();
                }
                (now() - start) as f64 / f64::from(calls)
            });
            spawner.await.unwrap()
        })
    }

    /// Nanoseconds per task that calls the function in a store handed on from task to task.
    pub fn reused(&self, calls: u32) -> f64 {
        let (engine, pre) = (self.engine.clone(), Arc::clone(&self.pre));
        self.rt.block_on(async move {
            let spawner = tokio::spawn(async move {
                let mut guest = instantiate(&engine, &pre).await;
                let start = now();
                for _ in 0..calls {
                    let task = tokio::spawn(async move {
                        let (mut store, func) = guest;
                        func.call_async(&mut store, ()).await.unwrap();
                        (store, func)
                    });
                    guest = task.await.unwrap();
                }
                (now() - start) as f64 / f64::from(calls)
            });
            spawner.await.unwrap()
        })
    }
}

async fn instantiate(engine: &Engine, pre: &InstancePre<()>) -> (Store<()>, TypedFunc<(), ()>) {
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(FAR);
    let instance = pre.instantiate_async(&mut store).await.unwrap();
    let func = instance.get_typed_func(&mut store, "nothing").unwrap();
    (store, func)
}
