//! Which invocations of a module may run beside each other: found in the module, not in a list of names.
//!
//! Those that can't change what another one sees. An invocation can read and write what the instructions do that
//! its export reaches. So it may if it writes to nothing, and reads no kind of state that any invocation of the
//! script can write to. What a module imports may not be state at all.

use crate::support::wast::stock_config;
use std::collections::{HashMap, HashSet};
use wasmparser::{ExternalKind, Import, Operator, Parser, Payload, Result, TypeRef};
use wasmtime::{Engine, Module};

pub const GC: &str = "the module needs a GC heap, exceptions or threads";
pub const IMPORTS: &str = "the module imports more than spectest's prints and constants";
pub const STATE: &str = "it can write, or reads what another invocation can write";

/// Stock Wasmtime, but for what a store of many fibers can't have (W9), and memories that threads share.
pub fn plain_engine() -> Engine {
    let mut config = stock_config();
    config.gc_support(false).wasm_gc(false).wasm_exceptions(false).wasm_threads(false).shared_memory(false);
    Engine::new(&config).expect("plain engine")
}

macro_rules! names {
    ($( @$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*) )*) => {
        fn name(op: &Operator<'_>) -> &'static str {
            match op {
                $( Operator::$op { .. } => stringify!($op), )*
                other => panic!("an operator without a name: {other:?}"),
            }
        }
    };
}
wasmparser::for_each_operator!(names);

/// Kinds of state: each index of an `Effects`' arrays.
const KINDS: [&[&str]; 3] =
    [&["Memory", "Load", "Store", "Atomic", "Data"], &["Table", "Elem", "Indirect"], &["Global"]];

/// Which kinds of state are read or written, and which are written.
#[derive(Clone, Copy, Default)]
struct Effects {
    touches: [bool; 3],
    writes: [bool; 3],
}

impl Effects {
    /// By name, so that instructions of later proposals are in.
    fn of(op: &Operator<'_>) -> Effects {
        const WRITERS: [&str; 10] =
            ["Store", "Atomic", "Set", "Grow", "Fill", "Copy", "Init", "Drop", "Discard", "Notify"];
        let name = name(op);
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let touches = KINDS.map(has);
        Effects { touches, writes: touches.map(|touches| touches && has(&WRITERS)) }
    }

    fn add(&mut self, other: Effects) {
        for kind in 0..KINDS.len() {
            self.touches[kind] |= other.touches[kind];
            self.writes[kind] |= other.writes[kind];
        }
    }
}

/// What a function does by itself.
#[derive(Default)]
struct Body {
    effects: Effects,
    calls: Vec<u32>,
    /// It calls what a table or a reference says: any function of the module, as far as we can tell.
    calls_any: bool,
}

/// What matters of a module.
#[derive(Default)]
struct Facts {
    imported: u32,
    imports_state: bool,
    mutable_globals: Vec<u32>,
    globals: u32,
    exports: HashMap<String, u32>,
    exports_state: bool,
    bodies: Vec<Body>,
}

impl Facts {
    fn read(wasm: &[u8]) -> Result<Facts> {
        let mut facts = Facts::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(imports) => {
                    imports.into_imports().try_for_each(|import| import.map(|import| facts.import(import)))?;
                }
                Payload::GlobalSection(globals) => {
                    globals.into_iter().try_for_each(|global| global.map(|g| facts.global(g.ty.mutable)))?;
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        match export.kind {
                            ExternalKind::Func => drop(facts.exports.insert(export.name.into(), export.index)),
                            ExternalKind::Global => {
                                facts.exports_state |= facts.mutable_globals.contains(&export.index);
                            }
                            _ => facts.exports_state = true,
                        }
                    }
                }
                Payload::CodeSectionEntry(code) => {
                    let mut body = Body::default();
                    for op in code.get_operators_reader()? {
                        let op = op?;
                        body.effects.add(Effects::of(&op));
                        match op {
                            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                                body.calls.push(function_index);
                            }
                            op => body.calls_any |= name(&op).contains("Call"),
                        }
                    }
                    facts.bodies.push(body);
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn import(&mut self, import: Import<'_>) {
        self.imports_state |= import.module != "spectest";
        match import.ty {
            TypeRef::Func(_) => {
                self.imported += 1;
                self.imports_state |= !import.name.starts_with("print");
            }
            TypeRef::Global(ty) => {
                self.global(ty.mutable);
                self.imports_state |= ty.mutable;
            }
            _ => self.imports_state = true,
        }
    }

    fn global(&mut self, mutable: bool) {
        if mutable {
            self.mutable_globals.push(self.globals);
        }
        self.globals += 1;
    }

    /// What a call of a function can do.
    fn effects(&self, function: u32) -> Effects {
        let (mut all, mut next, mut seen) = (Effects::default(), vec![function], vec![false; self.bodies.len()]);
        while let Some(function) = next.pop() {
            // The imported ones print.
            let Some(at) = function.checked_sub(self.imported).map(|at| at as usize) else { continue };
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let body = &self.bodies[at];
            all.add(body.effects);
            next.extend(&body.calls);
            if body.calls_any {
                next.extend((self.imported..).take(self.bodies.len()));
            }
        }
        all
    }
}

/// Which of the exports that a script invokes may be called by fibers of one instance at once; or why none may.
/// If the module is registered, others may call all of its exports, and write to the state among them.
pub fn independent(
    plain: &Engine,
    wasm: &[u8],
    invoked: &HashSet<String>,
    registered: bool,
) -> Result<HashSet<String>, &'static str> {
    if Module::validate(plain, wasm).is_err() {
        return Err(GC);
    }
    let facts = Facts::read(wasm).expect("it is valid");
    if facts.imports_state {
        return Err(IMPORTS);
    }
    let effects = facts.exports.iter().map(|(name, function)| (name, facts.effects(*function)));
    let effects: HashMap<_, _> = effects.filter(|(name, _)| registered || invoked.contains(*name)).collect();
    let mut others = Effects::default();
    effects.values().for_each(|effects| others.add(*effects));
    if registered && facts.exports_state {
        others.writes = [true; 3];
    }
    let alone = |name: &&String| {
        let Some(effects) = effects.get(name) else { return false };
        effects.touches.iter().zip(others.writes).all(|(touches, writes)| !touches || !writes)
    };
    Ok(invoked.iter().filter(alone).cloned().collect())
}
