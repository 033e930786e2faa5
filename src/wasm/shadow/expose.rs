//! Editing a module: what sharing its instance needs gets exported, and no other byte changes.
//!
//! The stack pointer of compiled code is exported by no toolchain unless asked to, and neither is the
//! table that function pointers are indices of. The export section is written anew with them at its end;
//! all other sections are copied as they are, and no index moves.

use std::borrow::Cow;

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser};

use super::find::{Choice, Contents, How, STACK_POINTER, no_module};

/// The exports that an edit adds when the usual name is taken or there is none.
pub const OUR_STACK_POINTER: &str = "__bop_stack_pointer";
pub const OUR_MEMORY: &str = "__bop_memory";
/// What toolchains call the memory.
pub const MEMORY: &str = "memory";
/// What C's function pointers are indices of.
pub const TABLE: &str = "__indirect_function_table";

/// The id of the export section, and those of the sections that must come after it.
const EXPORTS: u8 = 7;
const LATER: [u8; 5] = [8, 9, 12, 10, 11];

/// What was done to a module.
#[derive(Debug)]
pub struct Prepared<'a> {
    pub wasm: Cow<'a, [u8]>,
    pub how: How,
    /// Of the stack pointer, among all globals.
    pub index: u32,
    /// Exports that were added.
    pub added: usize,
}

fn encoded(kind: ExternalKind) -> Result<ExportKind, String> {
    Ok(match kind {
        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        ExternalKind::Tag => ExportKind::Tag,
    })
}

/// Finds the stack pointer, and exports it with the first memory and the first table, as far as they are not
/// exported under the names that are looked for. A component is left alone.
pub fn prepare<'a>(wasm: &'a [u8], choice: &Choice) -> Result<Prepared<'a>, String> {
    let contents = Contents::read(wasm, choice)?;
    let (how, index) = contents.find(choice)?;
    let mut more = Vec::new();
    let is = |kind, index| move |e: &&(String, ExternalKind, u32)| e.1 == kind && e.2 == index;
    let taken = |name: &str| contents.exports.iter().any(|e| e.0 == name);
    let found = |name: &str, kind, index| contents.exports.iter().any(|e| e.0 == name && is(kind, index)(&e));
    if how != How::None {
        let named = contents.exports.iter().filter(is(ExternalKind::Global, index));
        if !named.clone().any(|e| e.0 == STACK_POINTER || e.0 == OUR_STACK_POINTER) {
            let name = if taken(STACK_POINTER) { OUR_STACK_POINTER } else { STACK_POINTER };
            more.push((name, ExternalKind::Global, index));
        }
    }
    let memory = |name| found(name, ExternalKind::Memory, 0);
    if contents.memories > 0 && !memory(MEMORY) && !memory(OUR_MEMORY) {
        more.push((OUR_MEMORY, ExternalKind::Memory, 0));
    }
    if contents.tables > 0 && !taken(TABLE) {
        more.push((TABLE, ExternalKind::Table, 0));
    }
    if contents.is_component || more.is_empty() {
        return Ok(Prepared { wasm: Cow::Borrowed(wasm), how, index, added: 0 });
    }
    if let Some((name, ..)) = more.iter().find(|(name, ..)| taken(name)) {
        return Err(format!("the module exports something else as {name:?}"));
    }
    let added = more.len();
    let mut section = ExportSection::new();
    for (name, kind, index) in &contents.exports {
        section.export(name, encoded(*kind)?, *index);
    }
    for (name, kind, index) in more {
        section.export(name, encoded(kind)?, index);
    }
    let wasm = Cow::Owned(with_exports(wasm, &section)?);
    Ok(Prepared { wasm, how, index, added })
}

/// The module with another export section.
fn with_exports(wasm: &[u8], exports: &ExportSection) -> Result<Vec<u8>, String> {
    let mut module = Module::new();
    let mut written = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|e| no_module(&e))?;
        let Some((id, range)) = payload.as_section() else { continue };
        if id == EXPORTS || !written && LATER.contains(&id) {
            module.section(exports);
            written = true;
        }
        if id != EXPORTS {
            module.section(&RawSection { id, data: &wasm[range] });
        }
    }
    if !written {
        module.section(exports);
    }
    Ok(module.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Module};

    fn wasm(text: &str) -> Vec<u8> {
        wast::parser::parse::<wast::Wat>(&wast::parser::ParseBuffer::new(text).unwrap())
            .unwrap()
            .encode()
            .unwrap()
    }

    /// What clang makes of a function with a local array, at -O2.
    const FRAME: &str = "(func (export \"f\") (local i32)
        global.get 0 i32.const 32 i32.sub local.tee 0 global.set 0
        local.get 0 i32.const 32 i32.add global.set 0)";

    fn prepared(text: &str) -> (How, u32, Vec<String>) {
        let wasm = wasm(text);
        let prepared = prepare(&wasm, &Choice::Find).unwrap();
        let module = Module::new(&Engine::default(), &prepared.wasm).unwrap();
        let names = module.exports().map(|e| e.name().to_string()).collect();
        (prepared.how, prepared.index, names)
    }

    #[test]
    fn the_stack_pointer_is_found_in_each_way() {
        let first = "(global (mut i32) (i32.const 1024)) (memory (export \"memory\") 1)";
        let named = "(global $__stack_pointer (mut i32) (i32.const 1024)) (memory 1)";
        let imported = "(import \"env\" \"__stack_pointer\" (global (mut i32))) (memory 1)";
        let exported = "(global $a i32 (i32.const 0))
            (global (export \"__stack_pointer\") (mut i32) (i32.const 64)) (memory (export \"m\") 1)";
        let cases = [
            (format!("(module {first} {FRAME})"), How::Layout, 0, vec!["memory", "f", "__stack_pointer"]),
            (format!("(module {named})"), How::Name, 0, vec!["__stack_pointer", "__bop_memory"]),
            (format!("(module {imported})"), How::Import, 0, vec!["__stack_pointer", "__bop_memory"]),
            (format!("(module {exported})"), How::Export, 1, vec!["__stack_pointer", "m", "__bop_memory"]),
        ];
        for (text, how, index, names) in cases {
            let names = names.into_iter().map(String::from).collect();
            assert_eq!(prepared(&text), (how, index, names), "{text}");
        }
    }

    /// None of these has a shadow stack, though each looks a little as if it had.
    #[test]
    fn a_global_that_is_no_stack_pointer_is_left_alone() {
        let counter = "(func (export \"f\") global.get 0 i32.const 1 i32.add global.set 0)";
        let down = "(func (export \"f\") global.get 0 i32.const 1 i32.sub drop)";
        for (globals, function) in [
            ("(global (mut i32) (i32.const 1024))", counter),
            ("(global (mut i32) (i32.const 1024))", down),
            ("(global (mut i32) (i32.const 1025))", FRAME),
            ("(global (mut i32) (i32.const 65552))", FRAME),
            ("(global (mut i32) (i32.const 0))", FRAME),
            ("(global $x (mut i32) (i32.const 7)) (global (mut i32) (i32.const 1024))", FRAME),
            ("(global (mut i32) (i32.const 1024)) (global $__stack_pointer i32 (i32.const 0))", counter),
        ] {
            let text = format!("(module {globals} (memory (export \"m\") 1) {function})");
            assert_eq!(prepared(&text).0, How::None, "{text}");
        }
    }

    #[test]
    fn the_host_chooses_and_is_told_when_it_cannot_be() {
        let text = "(module (global $a (mut i32) (i32.const 8)) (global $b (mut i64) (i64.const 8))
            (global (export \"e\") (mut i32) (i32.const 16)) (memory 1))";
        let wasm = wasm(text);
        let index = |choice| prepare(&wasm, &choice).map(|p| (p.how, p.index));
        assert_eq!(index(Choice::Index(0)), Ok((How::Chosen, 0)));
        assert_eq!(index(Choice::Name("a".into())), Ok((How::Chosen, 0)));
        assert_eq!(index(Choice::Name("e".into())), Ok((How::Chosen, 2)));
        for choice in [Choice::Index(1), Choice::Index(3), Choice::Name("b".into()), Choice::Name("x".into())] {
            assert!(index(choice).is_err());
        }
        assert!(prepare(b"\0asm\x01\0\0\0\x06\xff", &Choice::Find).is_err());
        assert!(prepare(b"hello", &Choice::Find).is_err());
    }

    #[test]
    fn a_name_that_is_taken_is_not_exported_twice() {
        let sp = "(global $__stack_pointer (mut i32) (i32.const 8))";
        let both = "(export \"__stack_pointer\" (func 0)) (export \"__bop_stack_pointer\" (func 0))";
        let ours = "(export \"__bop_memory\" (func 0))";
        let one = "(export \"__stack_pointer\" (func 0))";
        let cases = [(both, false), (ours, false), (one, true)];
        for (exports, works) in cases {
            let wasm = wasm(&format!("(module (func) {sp} (memory 1) {exports})"));
            let prepared = prepare(&wasm, &Choice::Find);
            assert_eq!(prepared.is_ok(), works, "{exports}");
            if let Ok(prepared) = prepared {
                let module = Module::new(&Engine::default(), &prepared.wasm).unwrap();
                assert!(module.get_export(OUR_STACK_POINTER).is_some_and(|e| e.global().is_some()));
            }
        }
    }

    /// Every section but the export section is copied byte by byte, in order.
    #[test]
    fn no_other_section_changes() {
        let text = format!("(module (type (func)) (import \"a\" \"b\" (func)) (table 3 funcref)
            (memory 1) (global (mut i32) (i32.const 1024)) {FRAME} (start 0) (elem (i32.const 0) 0)
            (data (i32.const 2000) \"abc\") (@custom \"x\" (after data) \"y\"))");
        for text in [text.clone(), text.replace("(export \"f\")", "")] {
            let before = wasm(&text);
            let after = prepare(&before, &Choice::Find).unwrap().wasm;
            let sections = |wasm: &[u8]| -> Vec<(u8, Vec<u8>)> {
                let payloads = Parser::new(0).parse_all(wasm).map(|p| p.unwrap().as_section());
                let sections = payloads.flatten().map(|(id, range)| (id, wasm[range].to_vec()));
                sections.filter(|s| s.0 != EXPORTS).collect()
            };
            assert_eq!(sections(&before), sections(&after));
            assert_ne!(before, after[..]);
            assert_eq!(prepare(&after, &Choice::Find).unwrap().wasm[..], after[..], "twice is once");
            Module::new(&Engine::default(), &after).unwrap();
        }
    }
}
