//! Where an instance keeps its stack pointer, so that it can be switched by a load and a store.

use wasmtime::{Engine, Extern, Global, Instance, Memory, Module, Store, Val, ValType};
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_environ::{GlobalIndex, HostPtr, MemoryIndex, PtrSize, VMOffsets, VMOffsetsFields};

use super::region::{Allocator, Definition, WASM_PAGE};
use super::{Plan, Source, expose, find};
use crate::wasm::shared::Shared;

/// What is used of an instance.
pub struct Exports {
    pub global: Global,
    pub memory: Memory,
    pub allocator: Option<Allocator>,
}

impl Exports {
    /// Those that the plan names; `get` finds an export of the instance.
    pub fn find(
        store: &mut Store<WasmtimeStoreData>,
        plan: &Plan,
        get: impl Fn(&mut Store<WasmtimeStoreData>, &str) -> Option<Extern>,
    ) -> Result<Exports, String> {
        let names = |chosen: &Option<String>, usual: [&str; 2]| match chosen {
            Some(name) => vec![name.clone()],
            None => usual.map(String::from).into(),
        };
        let globals = names(&plan.stack_pointer, [expose::OUR_STACK_POINTER, find::STACK_POINTER]);
        let global = globals.iter().find_map(|name| get(store, name)?.into_global());
        let global = global.ok_or_else(|| {
            format!("the instance exports no global {}: see bop_module_prepare", globals.join(" or "))
        })?;
        let ty = global.ty(&mut *store);
        if !matches!(ty.content(), ValType::I32) || !ty.mutability().is_var() {
            return Err("the stack pointer is no mutable i32".into());
        }
        let memories = names(&plan.memory, [expose::OUR_MEMORY, expose::MEMORY]);
        let memory = memories.iter().find_map(|name| get(store, name)?.into_memory());
        let memory = memory
            .ok_or_else(|| format!("the instance exports no memory {} of its own", memories.join(" or ")))?;
        let ty = memory.ty(&mut *store);
        if ty.is_64() || ty.is_shared() || ty.page_size() != WASM_PAGE {
            return Err("stacks can be had in 32-bit memories of 64 KiB pages only".into());
        }
        let allocator = match &plan.source {
            Source::Grow => None,
            Source::Allocator { allocate, release } => {
                let mut func = |name: &str| {
                    let func = get(store, name).and_then(Extern::into_func);
                    func.ok_or_else(|| format!("the instance exports no function {name:?}"))
                };
                let (allocate, release) = (func(allocate)?, func(release)?);
                let wrong = |e: wasmtime::Error| format!("the allocator can't be called: {e:#}");
                let allocate = allocate.typed(&*store).map_err(wrong)?;
                let release = release.typed(&*store).map_err(wrong)?;
                Some(Allocator { allocate, release })
            }
        };
        Ok(Exports { global, memory, allocator })
    }
}

/// `(module (import "" "" (memory 0)) (import "" "" (global (mut i32))) (func (export "f")))`
const PROBE: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 2, 11, 2, 0, 0, 2, 0, 0, 0, 0, 3, 0x7f, 1,
    3, 2, 1, 0, 7, 5, 1, 1, 0x66, 0, 0, 10, 4, 1, 2, 0, 0x0b,
];

/// The module of the instance that imports both. To compile it takes more stack than a fiber has for its host
/// functions, so whoever may be on one brings it along.
pub fn probe(engine: &Engine) -> Result<Module, String> {
    Module::new(engine, PROBE).map_err(|e| format!("{e:#}"))
}

/// Where a global's value and a memory's definition (its base, then its length) lie.
///
/// An instance that imports both has their addresses in its `VMContext`, at offsets that are public and
/// depend on nothing but that instance's own module. What is found is tried out before it is used.
pub fn addresses(
    shared: &Shared,
    store: &mut Store<WasmtimeStoreData>,
    global: Global,
    memory: Memory,
) -> Result<(*mut u32, Definition), String> {
    let failed = |e: wasmtime::Error| format!("looking for the stack pointer: {e:#}");
    let module = shared.probe.get_or_init(|| probe(&shared.engine));
    let module = module.as_ref().map_err(Clone::clone)?;
    let imports = [memory.into(), global.into()];
    let probe = Instance::new(&mut *store, module, &imports).map_err(failed)?;
    let func = probe.get_func(&mut *store, "f").ok_or("the probe has no function")?;
    let offsets = VMOffsets::from(VMOffsetsFields {
        ptr: HostPtr,
        num_imported_functions: 0,
        num_imported_tables: 0,
        num_imported_memories: 1,
        num_imported_globals: 1,
        num_imported_tags: 0,
        num_defined_tables: 0,
        num_defined_memories: 0,
        num_owned_memories: 0,
        num_defined_globals: 0,
        num_defined_tags: 0,
        num_escaped_funcs: 1,
        num_runtime_data: 0,
        has_startup_func: false,
    });
    let func_ref: *mut u8 = func.to_raw(&mut *store).cast();
    // SAFETY: a `VMFuncRef` of a live store, whose `VMContext` is that of the probe; `wasmtime-environ` of
    // this very version gives the offsets.
    let (pointer, definition) = unsafe {
        let vmctx = func_ref.add(usize::from(HostPtr.vm_func_ref().vmctx())).cast::<*mut u8>().read();
        if vmctx.cast::<[u8; 4]>().read() != *b"core" {
            return Err("the probe's context does not start with `core`".into());
        }
        let at = |offset: u32| vmctx.add(offset as usize).cast::<*mut u8>().read();
        let global = at(offsets.vmctx_vmglobal_import_from(GlobalIndex::from_u32(0)));
        let memory = at(offsets.vmctx_vmmemory_import_from(MemoryIndex::from_u32(0)));
        (global.cast::<u32>(), Definition(memory))
    };
    let Val::I32(value) = global.get(&mut *store) else { return Err("no i32".into()) };
    for test in [value, !value, value] {
        global.set(&mut *store, Val::I32(test)).map_err(failed)?;
        // SAFETY: readable, as part of an instance or of the store, if it is what we think it is.
        if unsafe { pointer.read_volatile() } != test as u32 {
            return Err("the stack pointer is not where it should be".into());
        }
    }
    // SAFETY: as above.
    let (base, length) = unsafe { (definition.base(), definition.length()) };
    if base != memory.data_ptr(&mut *store) || length != memory.data_size(&mut *store) {
        return Err("the memory is not where it should be".into());
    }
    Ok((pointer, definition))
}
