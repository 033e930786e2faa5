//! Which global of a module is the stack pointer that its compiler keeps.
//!
//! | how    | what tells                                                                                |
//! |--------|-------------------------------------------------------------------------------------------|
//! | export | it is exported as `__stack_pointer`                                                        |
//! | import | it is imported as `__stack_pointer` (position-independent code)                            |
//! | name   | the name section calls it `__stack_pointer`                                                |
//! | layout | the first global that the module defines, as LLVM's linker puts it, and functions use it   |
//! |        | as a stack: they take a constant off it on entry and write it back                         |
//! | chosen | the host says so                                                                           |
//!
//! "layout" asks for both, place and use, since a module that was written by hand may well begin with
//! a global that counts something.

use wasmparser::{
    BinaryReaderError, ConstExpr, ExternalKind, FunctionBody, Global, GlobalType, KnownCustom, Name, Operator, Parser,
    Payload, TypeRef, ValType,
};

/// What compilers call it.
pub const STACK_POINTER: &str = "__stack_pointer";

/// How the stack pointer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    None,
    Export,
    Import,
    Name,
    Layout,
    Chosen,
}

/// What the host says of the stack pointer.
#[derive(Clone, Debug, Default)]
pub enum Choice {
    #[default]
    Find,
    /// By its name in the exports or in the name section.
    Name(String),
    Index(u32),
}

/// What an edit must know of a module.
#[derive(Debug, Default)]
pub struct Contents {
    /// Name, kind, index; kinds as they are encoded.
    pub exports: Vec<(String, ExternalKind, u32)>,
    /// All globals, the imported ones first.
    globals: Vec<GlobalType>,
    imported_globals: u32,
    /// What the first defined global starts with, if that is a constant.
    first: Option<u32>,
    import: Option<u32>,
    names: Vec<(u32, String)>,
    memory: Option<u64>,
    pub memories: u32,
    pub tables: u32,
    /// Functions that use the first defined global as a stack.
    frames: u32,
    pub is_component: bool,
}

/// What the parser says, in one line.
pub fn no_module(error: &BinaryReaderError) -> String {
    let line = error.message().lines().next().unwrap_or("");
    format!("not a module: {line} (at byte {})", error.offset())
}

/// The value of `(i32.const n)`.
fn constant(init: &ConstExpr<'_>) -> Option<u32> {
    match init.get_operators_reader().read().ok()? {
        Operator::I32Const { value } => Some(value as u32),
        _ => None,
    }
}

fn is_stack_pointer(ty: &GlobalType) -> bool {
    ty.content_type == ValType::I32 && ty.mutable && !ty.shared
}

/// Does this function use the global as a stack? Mostly the read, a constant and the subtraction stand
/// together (or, after wasm-opt, the addition of a negative one); at `-O0` the read comes first of all and
/// the subtraction some time later.
fn makes_a_frame(body: &FunctionBody<'_>, global: u32) -> wasmparser::Result<bool> {
    let (mut first, mut entry, mut read, mut taken) = (true, false, false, false);
    let mut constant = 0;
    for operator in body.get_operators_reader()? {
        let operator = operator?;
        match operator {
            Operator::GlobalSet { global_index } if global_index == global && taken => return Ok(true),
            Operator::I32Sub => taken |= entry || constant > 0,
            Operator::I32Add => taken |= constant < 0,
            _ => {}
        }
        constant = match operator {
            Operator::I32Const { value } if read => value,
            _ => 0,
        };
        read = matches!(operator, Operator::GlobalGet { global_index } if global_index == global);
        entry |= first && read;
        first = false;
    }
    Ok(false)
}

impl Contents {
    /// Reads a module. Its code is looked at only if nothing else tells.
    pub fn read(wasm: &[u8], choice: &Choice) -> Result<Contents, String> {
        let mut contents = Contents::default();
        let mut bodies = Vec::new();
        let mut read = |payload| contents.take(payload, &mut bodies);
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.and_then(&mut read) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => return Err(no_module(&e)),
            }
        }
        if matches!(choice, Choice::Find) && contents.named().is_none() && contents.may_be_layout() {
            let global = contents.imported_globals;
            for body in &bodies {
                let found = makes_a_frame(body, global).map_err(|e| no_module(&e))?;
                contents.frames += u32::from(found);
            }
        }
        Ok(contents)
    }

    /// False: the rest is of no interest.
    fn take<'a>(
        &mut self,
        payload: Payload<'a>,
        bodies: &mut Vec<FunctionBody<'a>>,
    ) -> wasmparser::Result<bool> {
        match payload {
            Payload::Version { encoding: wasmparser::Encoding::Component, .. } => {
                self.is_component = true;
                return Ok(false);
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Global(ty) => {
                            if import.name == STACK_POINTER && is_stack_pointer(&ty) {
                                self.import = Some(self.imported_globals);
                            }
                            self.globals.push(ty);
                            self.imported_globals += 1;
                        }
                        TypeRef::Memory(ty) => self.memory(ty.initial, ty.page_size_log2),
                        TypeRef::Table(_) => self.tables += 1,
                        _ => {}
                    }
                }
            }
            Payload::TableSection(tables) => self.tables += tables.count(),
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory?;
                    self.memory(memory.initial, memory.page_size_log2);
                }
            }
            Payload::GlobalSection(globals) => {
                for (i, global) in globals.into_iter().enumerate() {
                    let Global { ty, init_expr } = global?;
                    if i == 0 {
                        self.first = constant(&init_expr);
                    }
                    self.globals.push(ty);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.exports.push((export.name.into(), export.kind, export.index));
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body),
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    // A name section that can't be read is not the module's fault, nor ours.
                    for name in names.into_iter().map_while(Result::ok) {
                        let Name::Global(map) = name else { continue };
                        self.names.extend(
                            map.into_iter().map_while(Result::ok).map(|n| (n.index, n.name.into())),
                        );
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn memory(&mut self, pages: u64, page_size_log2: Option<u32>) {
        self.memories += 1;
        if self.memory.is_none() {
            self.memory = Some(pages << page_size_log2.unwrap_or(16).min(16));
        }
    }

    /// The global with this name in the exports or in the name section.
    fn by_name(&self, wanted: &str) -> Option<(How, u32)> {
        let export = self.exports.iter().find(|e| e.0 == wanted && e.1 == ExternalKind::Global);
        let name = || self.names.iter().find(|n| n.1 == wanted);
        export.map(|e| (How::Export, e.2)).or_else(|| name().map(|n| (How::Name, n.0)))
    }

    fn named(&self) -> Option<(How, u32)> {
        let usable = |found: &(How, u32)| self.check(found.1).is_ok();
        let import = || self.import.map(|index| (How::Import, index));
        self.by_name(STACK_POINTER).filter(usable).or_else(import)
    }

    /// Is the first defined global where LLVM's linker puts the stack pointer, and does it point into
    /// the memory, at a place where a stack may begin?
    fn may_be_layout(&self) -> bool {
        let size = self.memory.unwrap_or(0);
        let ty = self.globals.get(self.imported_globals as usize);
        ty.is_some_and(is_stack_pointer)
            && self.first.is_some_and(|top| top > 0 && top % 16 == 0 && u64::from(top) <= size)
    }

    /// Can this global be a stack pointer?
    fn check(&self, index: u32) -> Result<(), String> {
        match self.globals.get(index as usize) {
            None => Err(format!("there is no global {index}: the module has {}", self.globals.len())),
            Some(ty) if !is_stack_pointer(ty) => {
                Err(format!("global {index} is no mutable i32, so it can't be a stack pointer"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The global, and how it was found.
    pub fn find(&self, choice: &Choice) -> Result<(How, u32), String> {
        let chosen = match choice {
            Choice::Index(index) => *index,
            Choice::Name(name) => {
                let found = self.by_name(name);
                found.ok_or_else(|| format!("no global is named or exported as {name:?}"))?.1
            }
            Choice::Find => {
                let layout = || (self.frames > 0).then_some((How::Layout, self.imported_globals));
                return Ok(self.named().or_else(layout).unwrap_or((How::None, 0)));
            }
        };
        self.check(chosen)?;
        Ok((How::Chosen, chosen))
    }
}
