//! Random code: expressions of each type (`statement` has the rest). Valid by construction, whatever the seed.
//!
//! Two rules keep a program's outcome a function of its arguments. Addresses are masked into the region that
//! begins at `$base`. And a float's bits get to memory, to an integer or to a sign only after `$canon32` or
//! `$canon64`: Wasm leaves open which NaN an operator gives.

use crate::support::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    I32,
    I64,
    F32,
    F64,
}

use Type::*;

impl Type {
    pub const ALL: [Type; 4] = [I32, I64, F32, F64];

    pub fn name(self) -> &'static str {
        ["i32", "i64", "f32", "f64"][self as usize]
    }

    pub fn is_float(self) -> bool {
        matches!(self, F32 | F64)
    }

    fn bits(self) -> &'static str {
        if matches!(self, I32 | F32) { "32" } else { "64" }
    }
}

/// The generated functions `$f0`, `$f1`, ... have these types in turn, after `$base` and `$depth`. The result's
/// type is that of the first. Some have more parameters than there are registers for them.
pub const SHAPES: [&[Type]; 4] = [
    &[I64, F64],
    &[F64, I32, F32, F64, F64, F32, F64, F64, F64, F64],
    &[I32, F32, I64, I32, I64, I64, I32],
    &[F32, I64],
];
/// A multiple of the shapes.
pub const FUNCTIONS: usize = 12;
/// Of the exported `run`. Each call has one less.
pub const DEPTH: u32 = 8;
pub const LESS: &str = "(i32.sub (local.get $depth) (i32.const 1))";
/// Random addresses go so far; an access adds an offset and its width.
pub const MASK: u32 = 2047;
/// The region begins with the words that guide the program; no random access gets there.
pub const HEADER: u32 = 64;

/// The code of one function while it is written.
pub struct Code<'a> {
    pub rng: &'a mut Rng,
    /// What may be read and written.
    pub vars: Vec<(Type, String)>,
    /// The function's result is of this type.
    pub result: Type,
    /// For labels that are not taken.
    pub labels: u32,
}

impl Code<'_> {
    pub fn new(rng: &mut Rng, vars: Vec<(Type, String)>, result: Type) -> Code<'_> {
        Code { rng, vars, result, labels: 0 }
    }

    pub fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.rng.below(from.len() as u32) as usize]
    }

    pub fn var(&mut self, ty: Type) -> Option<String> {
        let of_type: Vec<_> = self.vars.iter().filter(|var| var.0 == ty).collect();
        let at = self.rng.below(of_type.len().max(1) as u32) as usize;
        of_type.get(at).map(|var| var.1.clone())
    }

    fn constant(&mut self, ty: Type) -> String {
        let value = match (ty.is_float(), self.rng.below(3)) {
            (false, 0) => self.pick(&["0", "1", "-1", "7", "255", "0x7fffffff", "0x80000000"]).into(),
            (false, _) => (self.rng.next() as i32).to_string(),
            (true, 0) => self.pick(&["0", "-0", "inf", "-inf", "nan", "1e30", "-1e-30"]).into(),
            (true, _) => format!("{}.{}", self.rng.next() as i32 >> self.rng.below(32), self.rng.below(1000)),
        };
        format!("({}.const {value})", ty.name())
    }

    pub fn leaf(&mut self, ty: Type) -> String {
        let var = if self.rng.below(4) == 0 { None } else { self.var(ty) };
        match var {
            Some(var) => format!("(local.get {var})"),
            None => self.constant(ty),
        }
    }

    pub fn expr(&mut self, ty: Type, deep: u32) -> String {
        if deep == 0 {
            return self.leaf(ty);
        }
        let deep = deep - 1;
        match self.rng.below(18) {
            0..=5 => self.binary(ty, deep),
            6..=7 => self.unary(ty, deep),
            8..=10 => self.convert(ty, deep),
            11..=12 => self.load(ty, deep),
            13 => {
                let (a, b, cond) = (self.expr(ty, deep), self.expr(ty, deep), self.expr(I32, deep));
                format!("(select {a} {b} {cond})")
            }
            14 => {
                let (cond, a, b) = (self.expr(I32, deep), self.expr(ty, deep), self.expr(ty, deep));
                format!("(if (result {}) {cond} (then {a}) (else {b}))", ty.name())
            }
            15..=16 => self.call(ty),
            _ => self.host(ty, deep),
        }
    }

    fn binary(&mut self, ty: Type, deep: u32) -> String {
        let (a, mut b) = (self.expr(ty, deep), self.expr(ty, deep));
        let (name, op) = (ty.name(), match ty.is_float() {
            false => self.pick(&[
                "add", "sub", "mul", "and", "or", "xor", "shl", "shr_s", "shr_u", "rotl", "rotr", "div_u", "rem_u",
                "div_s", "rem_s",
            ]),
            true => self.pick(&["add", "sub", "mul", "div", "min", "max", "copysign"]),
        });
        match op {
            // Neither 0 nor -1: traps have places of their own.
            "div_u" | "rem_u" | "div_s" | "rem_s" => {
                b = format!("({name}.or ({name}.and {b} ({name}.const 0x7fff)) ({name}.const 1))");
            }
            "copysign" => b = canonical(ty, &b),
            _ => {}
        }
        format!("({name}.{op} {a} {b})")
    }

    fn unary(&mut self, ty: Type, deep: u32) -> String {
        let op = match ty {
            I32 => self.pick(&["clz", "ctz", "popcnt", "extend8_s", "extend16_s", "eqz"]),
            I64 => self.pick(&["clz", "ctz", "popcnt", "extend8_s", "extend16_s", "extend32_s"]),
            _ => self.pick(&["abs", "neg", "sqrt", "ceil", "floor", "trunc", "nearest"]),
        };
        format!("({}.{op} {})", ty.name(), self.expr(ty, deep))
    }

    /// From another type.
    fn convert(&mut self, ty: Type, deep: u32) -> String {
        let from = Type::ALL[self.rng.below(4) as usize];
        let sign = self.pick(&["_s", "_u"]);
        let (to, name) = (ty.name(), from.name());
        let arg = self.expr(from, deep);
        let reinterpret = self.rng.below(2) == 0 && ty.bits() == from.bits();
        match (ty, from) {
            (I32, _) if self.rng.below(2) == 0 => {
                let op = self.pick(&["eq", "ne", "lt", "gt", "le", "ge"]);
                let signed = !from.is_float() && !matches!(op, "eq" | "ne");
                format!("({name}.{op}{} {arg} {})", if signed { sign } else { "" }, self.expr(from, deep))
            }
            (I32, I64) => format!("(i32.wrap_i64 {arg})"),
            (I64, I32) => format!("(i64.extend_i32{sign} {arg})"),
            (F32, F64) => format!("(f32.demote_f64 {arg})"),
            (F64, F32) => format!("(f64.promote_f32 {arg})"),
            _ if ty.is_float() == from.is_float() => arg,
            _ if reinterpret => format!("({to}.reinterpret_{name} {})", canonical(from, &arg)),
            _ if ty.is_float() => format!("({to}.convert_{name}{sign} {arg})"),
            _ => format!("({to}.trunc_sat_{name}{sign} {arg})"),
        }
    }

    pub fn address(&mut self, deep: u32) -> String {
        format!("(i32.add (local.get $base) (i32.and {} (i32.const {MASK})))", self.expr(I32, deep))
    }

    pub fn offset(&mut self) -> u32 {
        HEADER + self.rng.below(64)
    }

    fn load(&mut self, ty: Type, deep: u32) -> String {
        let op = match ty {
            I32 => self.pick(&["load", "load8_s", "load8_u", "load16_s", "load16_u"]),
            I64 => self.pick(&["load", "load8_s", "load8_u", "load16_s", "load16_u", "load32_s", "load32_u"]),
            _ => "load",
        };
        format!("({}.{op} offset={} {})", ty.name(), self.offset(), self.address(deep))
    }

    /// The operands of a call of a function of this shape.
    pub fn operands(&mut self, shape: usize, depth: &str, deep: u32) -> String {
        let args: Vec<_> = SHAPES[shape].iter().map(|&ty| self.expr(ty, deep)).collect();
        format!("(local.get $base) {depth} {}", args.join(" "))
    }

    /// A function that gives `ty`, and its shape.
    pub fn function(&mut self, ty: Type) -> (usize, usize) {
        let shape = SHAPES.iter().position(|shape| shape[0] == ty).expect("each type has its shape");
        (shape + SHAPES.len() * self.rng.below((FUNCTIONS / SHAPES.len()) as u32) as usize, shape)
    }

    /// A call of another function, which may be the same: as long as there is depth left.
    fn call(&mut self, ty: Type) -> String {
        let (function, shape) = self.function(ty);
        let call = match self.rng.below(2) {
            0 => {
                let (args, count) = (self.operands(shape, LESS, 1), FUNCTIONS / SHAPES.len());
                let which = format!("(i32.rem_u {} (i32.const {count}))", self.expr(I32, 1));
                let index = format!("(i32.add (i32.const {shape}) (i32.mul (i32.const {}) {which}))", SHAPES.len());
                format!("(call_indirect (type $s{shape}) {args} {index})")
            }
            _ => format!("(call $f{function} {})", self.operands(shape, LESS, 1)),
        };
        let (name, otherwise) = (ty.name(), self.leaf(ty));
        format!("(if (result {name}) (i32.gt_s (local.get $depth) (i32.const 0)) (then {call}) (else {otherwise}))")
    }

    fn host(&mut self, ty: Type, deep: u32) -> String {
        match ty {
            I32 => format!("(call $yield {})", self.expr(I32, deep)),
            F32 => format!("(call $sleep {})", self.expr(I32, deep)),
            F64 => format!("(call $wave {} {})", self.expr(F64, deep), self.expr(F32, deep)),
            I64 => {
                let args: Vec<_> = Type::ALL.iter().map(|&ty| self.expr(ty, deep)).collect();
                format!("(call $mix {})", args.join(" "))
            }
        }
    }
}

/// A value whose bits may be looked at.
pub fn canonical(ty: Type, value: &str) -> String {
    if ty.is_float() { format!("(call $canon{} {value})", ty.bits()) } else { value.into() }
}
