//! All invocations of a script at once: a store with one instance for each module, and a fiber for each invocation.

use super::script::{Call, Expected, Module};
use super::value::{Value, results};
use crate::support::{Fiber, Options, Outcome, Rng, Runtime, Trap, fiber, ok};
use std::ptr::null_mut;
use std::time::Duration;
use wasmtime::{Engine, Extern, ExternType, Func, Global, Instance, Val, ValType};

/// Only a lost wake-up can use it up.
const LIMIT: Duration = Duration::from_secs(120);

/// A store with one instance.
struct Store<'a> {
    store: *mut bop::bop_store_t,
    module: &'a Module,
    /// The function of each of the module's calls.
    functions: Vec<Func>,
    options: Options,
}

impl<'a> Store<'a> {
    fn new(rt: &Runtime, engine: &Engine, script: &str, module: &'a Module) -> Store<'a> {
        let compiled = wasmtime::Module::new(engine, &module.wasm).expect("stock compiles it, too");
        let mut store = bop::wasmtime_store_new(rt.engine(), null_mut(), None);
        let mut context = bop::wasmtime_store_context(&mut store);
        // For start functions; `bop_store_new` sets it anew.
        context.set_epoch_deadline(u64::MAX / 2);
        let imports: Vec<_> = compiled.imports().map(|import| spectest(&mut context, import.ty())).collect();
        let instance = Instance::new(&mut context, &compiled, &imports).expect("stock instantiates it, too");
        let find = |call: &Call| instance.get_func(&mut context, &call.export).expect("stock calls it, too");
        let functions = module.calls.iter().map(find).collect();
        let mut out = null_mut();
        // SAFETY: `bop_store_new` takes the store.
        ok(unsafe { bop::bop_store_new(rt.0, Box::into_raw(store), &mut out) });
        Store { store: out, module, functions, options: Options::new(script, 0) }
    }

    /// Keeps the fibers from running until `exit`: so all are there when the first one runs.
    fn enter(&self) {
        let mut context = null_mut();
        // SAFETY: the handle is live; nobody uses the context.
        ok(unsafe { bop::bop_store_enter(self.store, &mut context) });
    }

    fn exit(&self) {
        // SAFETY: the handle is live.
        ok(unsafe { bop::bop_store_exit(self.store) });
    }

    fn spawn(&self, call: usize) -> Fiber {
        let args: Vec<_> = self.module.calls[call].args.iter().map(|arg| arg.to_c()).collect();
        let (func, mut out) = (&self.functions[call], null_mut());
        // SAFETY: every pointer is live; the arguments are copied.
        ok(unsafe { bop::bop_spawn(self.store, func, args.as_ptr(), args.len(), self.options.0, &mut out) });
        Fiber(out)
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        // SAFETY: the last use of the handle.
        unsafe { bop::bop_store_delete(self.store) };
    }
}

/// What a module may import: the constants of the suite's host, and functions that would print. These give up
/// the fiber's turn instead.
fn spectest(mut context: impl wasmtime::AsContextMut, ty: ExternType) -> Extern {
    match ty {
        ExternType::Func(ty) => {
            let print = |_: wasmtime::Caller<'_, _>, _: &[Val], _: &mut [Val]| {
                fiber::yield_now();
                Ok(())
            };
            Func::new(&mut context, ty, print).into()
        }
        ExternType::Global(ty) => {
            let value = match ty.content() {
                ValType::I32 => Val::I32(666),
                ValType::I64 => Val::I64(666),
                ValType::F32 => Val::F32(666.6_f32.to_bits()),
                ValType::F64 => Val::F64(666.6_f64.to_bits()),
                other => panic!("spectest has no constant of type {other}"),
            };
            Global::new(&mut context, ty, value).expect("global").into()
        }
        other => panic!("spectest lends no state: {other:?}"),
    }
}

/// The script's words for a trap, and Wasmtime's code; scripts shorten them, or add details.
const TRAPS: [(&str, wasmtime::Trap); 13] = [
    ("unreachable", wasmtime::Trap::UnreachableCodeReached),
    ("integer divide by zero", wasmtime::Trap::IntegerDivisionByZero),
    ("integer overflow", wasmtime::Trap::IntegerOverflow),
    ("invalid conversion to integer", wasmtime::Trap::BadConversionToInteger),
    ("out of bounds memory access", wasmtime::Trap::MemoryOutOfBounds),
    ("out of bounds table access", wasmtime::Trap::TableOutOfBounds),
    ("undefined element", wasmtime::Trap::TableOutOfBounds),
    ("uninitialized element", wasmtime::Trap::IndirectCallToNull),
    ("indirect call type mismatch", wasmtime::Trap::BadSignature),
    ("null reference", wasmtime::Trap::NullReference),
    ("null function reference", wasmtime::Trap::NullReference),
    ("null function reference", wasmtime::Trap::IndirectCallToNull),
    ("call stack exhausted", wasmtime::Trap::StackOverflow),
];

/// Is it the trap that the script speaks of: by its code, and by its message?
fn is_trap(words: &str, trap: &Trap) -> bool {
    TRAPS.iter().any(|(text, code)| {
        let meant = text.starts_with(words) || words.starts_with(text);
        meant && trap.code == Some(*code as u8) && trap.message.trim_end().ends_with(&code.to_string())
    })
}

/// What is wrong with the way a fiber ended.
fn wrong(fiber: &Fiber, expected: &Expected) -> Option<String> {
    let ended = match fiber.join_within(LIMIT) {
        Ok(ended) => ended,
        Err(status) => return Some(format!("the join gave status {status}")),
    };
    let got = match (ended, expected) {
        (Outcome::Returned, Expected::Return) => return None,
        (Outcome::Returned, Expected::Results(wants)) => {
            let got = results(fiber, wants.len());
            let fit = |got: &Vec<Value>| wants.iter().zip(got).all(|(want, got)| want.fits(*got));
            if got.as_ref().is_ok_and(fit) {
                return None;
            }
            format!("{got:x?}")
        }
        (Outcome::Trapped, Expected::Trap(words)) => match fiber.take_trap() {
            Some(trap) if is_trap(words, &trap) => return None,
            other => format!("{other:?}"),
        },
        (other, _) => format!("{other:?}: {:?}", fiber.take_trap()),
    };
    Some(format!("expected {expected:x?}, got {got}"))
}

/// What came of a script.
#[derive(Default)]
pub struct Report {
    pub fibers: usize,
    /// Fibers that lost the store to another one, which then began, before they ended.
    pub interleaved: usize,
    pub returned: usize,
    pub trapped: usize,
    /// The line of each invocation that came out wrong, and how: once for each repetition that did.
    pub wrong: Vec<(usize, String)>,
}

/// When a fiber of a runtime with times began and ended.
fn life(fiber: &Fiber) -> (u64, u64) {
    // SAFETY: a structure of plain integers, for which zero is a value.
    let mut times: bop::bop_times_t = unsafe { std::mem::zeroed() };
    times.size = size_of::<bop::bop_times_t>();
    // SAFETY: the handle is live, and `times` is as large as it says.
    assert!(unsafe { bop::bop_fiber_times(fiber.0, &mut times) });
    (times.started_ns, times.finished_ns)
}

/// Makes all calls of the modules at once, each so many times, in random order.
pub fn together(
    rt: &Runtime,
    engine: &Engine,
    script: &str,
    modules: &[Module],
    repeats: usize,
    rng: &mut Rng,
) -> Report {
    let stores: Vec<_> = modules.iter().map(|module| Store::new(rt, engine, script, module)).collect();
    let calls = |at: usize| (0..modules[at].calls.len()).map(move |call| (at, call));
    let all = (0..modules.len()).flat_map(calls);
    let mut order: Vec<(usize, usize)> = all.flat_map(|place| vec![place; repeats]).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.below(at as u32 + 1) as usize);
    }
    stores.iter().for_each(Store::enter);
    let fibers: Vec<_> = order.iter().map(|&(at, call)| stores[at].spawn(call)).collect();
    stores.iter().for_each(Store::exit);

    let mut report = Report { fibers: fibers.len(), ..Report::default() };
    let mut lives: Vec<_> = modules.iter().map(|_| Vec::new()).collect();
    for (fiber, &(at, call)) in fibers.iter().zip(&order) {
        let call = &modules[at].calls[call];
        let counter = match call.expected {
            Expected::Trap(_) => &mut report.trapped,
            _ => &mut report.returned,
        };
        match wrong(fiber, &call.expected) {
            None => *counter += 1,
            Some(text) => {
                report.wrong.push((call.line, format!("{} of {:x?}: {text}", call.export, call.args)));
            }
        }
        lives[at].push(life(fiber));
    }
    for mut lives in lives {
        lives.sort_unstable();
        // A store runs one fiber at a time: who begins within another's life took the turn from it.
        report.interleaved += lives.windows(2).filter(|pair| pair[1].0 < pair[0].1).count();
    }
    report
}
