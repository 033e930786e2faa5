//! What sharing an instance rests on: W13 to W16.

use wasmtime::{Global, GlobalType, Memory, MemoryType, Mutability, Val, ValType};

use super::*;
use crate::wasm::preempt;
use crate::wasm::shadow::locate::addresses;
use crate::wasm::shadow::may_move;

/// An instance that imports a global and a memory has their addresses in its context, whoever made them; they
/// stay, and a memory's base and length are always those of now.
#[test]
fn w13_the_address_of_a_global_is_in_whoever_imports_it() {
    let rt = one_worker();
    let mut own = wasmtime_store_new(&rt.shared.c_engine, std::ptr::null_mut(), None);
    let store = bridge::store(&mut own);
    preempt::install(store);
    let text = r#"(module (global i32 (i32.const 0)) (global (export "a") (mut i32) (i32.const 11))
        (global (export "b") (mut i32) (i32.const 12)) (memory (export "m") 1 3)
        (func (export "set") (param i32) (global.set 2 (local.get 0))))"#;
    let module = Module::new(&rt.shared.engine, text).unwrap();
    let instance = Instance::new(&mut *store, &module, &[]).unwrap();
    let of_wasm = |store: &mut _, name| instance.get_global(store, name).unwrap();
    let host = |store: &mut wasmtime::Store<Data>, value| {
        let ty = GlobalType::new(ValType::I32, Mutability::Var);
        Global::new(store, ty, Val::I32(value)).unwrap()
    };
    let globals = [of_wasm(&mut *store, "a"), of_wasm(&mut *store, "b"), host(store, 13), host(store, 14)];
    let memories = [
        instance.get_memory(&mut *store, "m").unwrap(),
        Memory::new(&mut *store, MemoryType::new(2, None)).unwrap(),
    ];
    let mut seen = Vec::new();
    for (i, global) in globals.into_iter().enumerate() {
        let memory = memories[i % 2];
        let (pointer, definition) = addresses(&rt.shared, store, global, memory).unwrap();
        // SAFETY: the store lives.
        assert_eq!(unsafe { *pointer }, 11 + i as u32);
        memory.grow(&mut *store, 1).unwrap();
        // SAFETY: as above.
        let (base, length) = unsafe { (definition.base(), definition.length()) };
        assert_eq!((base, length), (memory.data_ptr(&*store), memory.data_size(&*store)));
        seen.push(pointer);
    }
    let set = instance.get_typed_func::<i32, ()>(&mut *store, "set").unwrap();
    set.call(&mut *store, 99).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { seen.iter().map(|p| **p).collect::<Vec<_>>() }, [11, 99, 13, 14]);
}

/// What an engine's configuration says of itself is enough to know whether memories may move. Where they may, one
/// does.
#[test]
fn w16_an_engine_tells_whether_memories_may_move() {
    type Change = fn(&mut wasmtime::Config) -> &mut wasmtime::Config;
    let cases: [(Change, u64, bool); 6] = [
        (|c| c, 1 << 32, false),
        (|c| c.memory_reservation(1 << 20), 1 << 26, true),
        (|c| c.memory_reservation(1 << 20), 1 << 20, false),
        (|c| c.memory_reservation(1 << 20).memory_may_move(false), 1 << 26, false),
        (|c| c.memory_reservation_for_growth(0).gc_heap_reservation(0), 1 << 32, false),
        (|c| c.memory_reservation(0).memory_guard_size(1 << 16), 1 << 17, true),
    ];
    for (i, (change, most, expected)) in cases.into_iter().enumerate() {
        let mut config = wasmtime::Config::new();
        let engine = wasmtime::Engine::new(change(&mut config)).unwrap();
        assert_eq!(may_move(&engine, most), expected, "case {i}: {:?}", engine.config());
        let mut store = wasmtime::Store::new(&engine, ());
        let pages = most >> 16;
        let ty = MemoryType::new(1, u32::try_from(pages).ok());
        let memory = Memory::new(&mut store, ty).unwrap();
        let base = memory.data_ptr(&store);
        let grown = memory.grow(&mut store, pages.min(64) - 1).is_ok();
        if i == 1 {
            assert!(grown && memory.data_ptr(&store) != base, "it did not move");
        }
        if !expected {
            assert_eq!(memory.data_ptr(&store), base, "case {i}: it moved");
        }
    }
}

/// Two instances of one module are told apart, and each is always the same.
#[test]
fn w14_the_calling_instance_is_known_to_a_host_function() {
    let rt = one_worker();
    let mut own = wasmtime_store_new(&rt.shared.c_engine, std::ptr::null_mut(), None);
    let store = bridge::store(&mut own);
    preempt::install(store);
    let calls: Arc<Mutex<Vec<Option<u32>>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let mut linker = Linker::<Data>::new(&rt.shared.engine);
    let note = move |mut caller: Caller<'_, Data>| {
        seen.lock().unwrap().push(bridge::calling_instance(&mut caller));
    };
    linker.func_wrap("host", "note", note).unwrap();
    let text = r#"(module (import "host" "note" (func $note)) (func (export "f") (call $note)))"#;
    let module = Module::new(&rt.shared.engine, text).unwrap();
    let instances: Vec<_> =
        (0..2).map(|_| linker.instantiate(&mut *store, &module).unwrap()).collect();
    for i in [0, 1, 1, 0] {
        let func = instances[i].get_typed_func::<(), ()>(&mut *store, "f").unwrap();
        func.call(&mut *store, ()).unwrap();
    }
    let calls = calls.lock().unwrap();
    assert!(calls[0].is_some() && calls[1].is_some(), "{calls:?}");
    assert!(calls[0] == calls[3] && calls[1] == calls[2] && calls[0] != calls[1], "{calls:?}");
}

/// A read and a write that stand together are not torn apart, though there is a switch at every check;
/// with a call in between they are, or a bulk operation that may be long.
#[test]
fn w15_a_straight_line_is_not_interrupted() {
    let rt = runtime(Config { workers: 1, quantum: 0, ..Config::default() });
    let guest = Guest::new(
        &rt,
        r#"(module (memory 1)
             (func $one (result i32) (i32.const 1))
             (func (export "straight") (param i32)
               (loop (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                 (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
             (func (export "call") (param i32)
               (loop (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (call $one)))
                 (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
             (func (export "fill") (param i32) (local i32)
               (loop (local.set 1 (i32.load (i32.const 8)))
                 (memory.fill (i32.const 64) (i32.const 0) (local.get 0))
                 (i32.store (i32.const 8) (i32.add (local.get 1) (i32.const 1)))
                 (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
             (func (export "total") (param i32) (result i32) (i32.load (local.get 0))))"#,
        |_| {},
    );
    let (fibers, laps) = (20, 1_000);
    let ways = ["straight", "call", "fill"];
    let all: Vec<_> = (0..fibers).flat_map(|_| ways).map(|name| guest.spawn(name, laps)).collect();
    rt.run().unwrap();
    assert!(all.iter().all(|fiber| fiber.end().unwrap().outcome == Outcome::Returned));
    let totals = [0, 4, 8].map(|at| guest.spawn("total", at));
    rt.run().unwrap();
    // SAFETY: each returns an i32.
    let totals = totals.map(|fiber| unsafe { fiber.end().unwrap().results[0].of.i32 });
    assert_eq!(totals[0], fibers * laps);
    assert!(totals[1..].iter().all(|&t| t < fibers * laps), "nothing was lost: nothing was interrupted");
}
