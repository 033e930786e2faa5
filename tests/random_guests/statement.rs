//! Random code: statements, and the places where programs trap.

use super::code::{Code, FUNCTIONS, HEADER, LESS, SHAPES, Type, canonical};
use Type::*;

/// Only calls that have so much left may start the deep recursion, which leaves less: once on a stack is enough.
const DEEP: u32 = 3;

impl Code<'_> {
    pub fn statements(&mut self, count: u32, nest: u32) -> String {
        (0..count).map(|_| self.statement(nest) + "\n").collect()
    }

    fn statement(&mut self, nest: u32) -> String {
        match self.rng.below(20) {
            0..=6 => {
                let at = self.rng.below(self.vars.len() as u32) as usize;
                let (ty, name) = self.vars[at].clone();
                format!("(local.set {name} {})", self.expr(ty, 3))
            }
            7..=10 => self.store(2),
            11..=12 if nest < 2 => self.repeat(nest),
            13 if nest < 3 => {
                let (cond, a, b) = (self.expr(I32, 2), self.statements(2, nest + 1), self.statements(1, nest + 1));
                format!("(if {cond} (then {a}) (else {b}))")
            }
            14 if nest < 2 => self.switch(nest),
            15 => self.bulk(),
            16 => {
                let (cond, mut value) = (self.expr(I32, 2), self.expr(self.result, 1));
                if self.result == I64 {
                    value = format!("(call $fold (local.get $all) {value})");
                }
                format!("(if (i32.eq (i32.and {cond} (i32.const 31)) (i32.const 5)) (then (return {value})))")
            }
            17 => self.descend(),
            _ => self.site(),
        }
    }

    fn repeat(&mut self, nest: u32) -> String {
        let (n, trips) = (self.labels, 2 + self.rng.below(12));
        self.labels += 1;
        let body = self.statements(3, nest + 1);
        format!(
            "(local.set $n{nest} (i32.const {trips}))
            (block $out{n} (loop $top{n}
              (br_if $out{n} (call $spent (local.get $base)))
              {body}
              (local.set $n{nest} (i32.sub (local.get $n{nest}) (i32.const 1)))
              (br_if $top{n} (local.get $n{nest}))))"
        )
    }

    fn switch(&mut self, nest: u32) -> String {
        let n = self.labels;
        self.labels += 1;
        let (on, a, b) = (self.expr(I32, 2), self.statements(1, nest + 1), self.statements(2, nest + 1));
        format!(
            "(block $d{n} (block $b{n} (block $a{n}
              (br_table $a{n} $b{n} $d{n} $b{n} (i32.and {on} (i32.const 3))))
              {a} (br $d{n})) {b})"
        )
    }

    /// A place where an armed program traps, in one of two ways.
    pub fn site(&mut self) -> String {
        let (key, which, a, b) = (self.rng.next() | 1, self.leaf(I32), self.trap(), self.trap());
        let armed = format!("(call $armed (local.get $base) (i32.const {key}))");
        format!("(if {armed} (then (if (i32.and {which} (i32.const 1)) (then {a}) (else {b}))))")
    }

    fn trap(&mut self) -> String {
        const ZERO: &str = "(i32.load offset=12 (local.get $base))";
        const LEAST: &str = "(i64.const 0x8000000000000000)";
        let (i, l) = (self.leaf(I32), self.leaf(I64));
        let far = format!("(i32.or {i} (i32.const 0x70000000))");
        let wrong = self.rng.below(SHAPES.len() as u32 - 1) as usize + 1;
        let (_, shape) = self.function(self.result);
        let args = self.operands(shape, "(i32.const 0)", 0);
        let indirect = |index: String| format!("(drop (call_indirect (type $s{shape}) {args} {index}))");
        match self.rng.below(26) {
            0..=1 => "unreachable".into(),
            2..=3 => format!("(drop (i32.rem_u {i} {ZERO}))"),
            4..=5 => format!("(drop (i64.div_s {LEAST} (i64.extend_i32_s (i32.sub {ZERO} (i32.const 1)))))"),
            6..=7 => format!("(drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.convert_i32_s {ZERO}))))"),
            8 => format!("(drop (i64.load {far}))"),
            9 => format!("(i32.store8 {far} {i})"),
            10 => format!("(memory.fill (local.get $base) {i} (i32.const 0x7fffffff))"),
            11 => format!("(memory.copy {far} (local.get $base) (i32.const 9))"),
            12..=13 => indirect(format!("(i32.or {i} (i32.const 0x40000000))")),
            14..=15 => indirect(format!("(i32.add (i32.const {FUNCTIONS}) (i32.and {i} (i32.const 3)))")),
            16..=17 => indirect(format!("(i32.const {})", (shape + wrong) % SHAPES.len())),
            18..=19 => format!("(drop (call $exhaust {l} {}))", self.leaf(F64)),
            _ => format!("(call $fail {i})"),
        }
    }

    fn store(&mut self, deep: u32) -> String {
        let ty = Type::ALL[self.rng.below(4) as usize];
        let op = match ty {
            I32 => self.pick(&["store", "store8", "store16"]),
            I64 => self.pick(&["store", "store8", "store16", "store32"]),
            _ => "store",
        };
        let (offset, at, value) = (self.offset(), self.address(deep), self.expr(ty, deep));
        format!("({}.{op} offset={offset} {at} {})", ty.name(), canonical(ty, &value))
    }

    fn bulk(&mut self) -> String {
        let to = format!("(i32.add (i32.const {HEADER}) {})", self.address(1));
        let len = format!("(i32.and {} (i32.const 255))", self.expr(I32, 1));
        match self.rng.below(2) {
            0 => format!("(memory.fill {to} {} {len})", self.expr(I32, 1)),
            _ => format!("(memory.copy {to} (i32.add (i32.const {HEADER}) {}) {len})", self.address(1)),
        }
    }

    /// Starts the deep recursion, or has the host call back.
    fn descend(&mut self) -> String {
        let Some(to) = self.var(I64) else { return self.site() };
        let (least, call) = match self.rng.below(2) {
            0 => {
                let (n, x, d) = (self.expr(I32, 1), self.leaf(I64), self.leaf(F64));
                let levels = format!("(i32.or (i32.and {n} (i32.const 255)) (i32.const 64))");
                (DEEP, format!("(call $deep (local.get $base) {levels} {x} {d})"))
            }
            _ => (1, format!("(call $back (local.get $base) {LESS} {})", self.expr(I64, 1))),
        };
        format!("(if (i32.ge_s (local.get $depth) (i32.const {least})) (then (local.set {to} {call})))")
    }
}
