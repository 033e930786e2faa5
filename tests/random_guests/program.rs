//! A random program: its functions, and the frame that bounds what they do.
//!
//! A fiber's region of memory begins with two words. The first is *fuel*: each call and each trip of a loop takes
//! one, and without fuel functions return at once. So all programs end. The second says below which fuel the
//! program is *armed*: one of the next places for a trap then traps, in its own way. Whoever catches that trap (a
//! host function may) goes on disarmed.

use super::code::{Code, DEPTH, FUNCTIONS, HEADER, LESS, MASK, SHAPES, Type};
use crate::support::Rng;
use Type::*;

/// One fiber's part of the memory. The programs use little more than half of it: what is behind must stay zero.
pub const REGION: usize = 4096;

/// What never changes.
const FIXED: &str = r#"
  (func $spent (param $base i32) (result i32) (local $left i32)
    (local.set $left (i32.sub (i32.load (local.get $base)) (i32.const 1)))
    (i32.store (local.get $base) (local.get $left))
    (i32.lt_s (local.get $left) (i32.const 0)))
  (func $armed (param $base i32) (param $key i32) (result i32) (local $left i32)
    (local.set $left (i32.load (local.get $base)))
    (if (i32.ge_s (local.get $left) (i32.load offset=4 (local.get $base))) (then (return (i32.const 0))))
    (if (i32.shr_u (i32.mul (local.get $left) (local.get $key)) (i32.const 29)) (then (return (i32.const 0))))
    (i32.store offset=4 (local.get $base) (i32.const 0x80000000))
    (i32.const 1))
  (func $canon32 (param $x f32) (result f32)
    (select (local.get $x) (f32.const nan) (f32.eq (local.get $x) (local.get $x))))
  (func $canon64 (param $x f64) (result f64)
    (select (local.get $x) (f64.const nan) (f64.eq (local.get $x) (local.get $x))))
  (func $fold (param $all i64) (param $x i64) (result i64)
    (i64.mul (i64.xor (i64.rotl (local.get $all) (i64.const 23)) (local.get $x)) (i64.const 0x9e3779b97f4a7c15)))
  (func $exhaust (param $x i64) (param $d f64) (result i64)
    (i64.add (local.get $x)
      (call $exhaust (i64.rotl (local.get $x) (i64.const 3)) (f64.sqrt (local.get $d)))))
"#;

/// The text of the module, which exports `run(base: i32, seed: i64) -> i64`.
pub fn text(seed: u64, pages: usize) -> String {
    let mut rng = Rng::new(seed);
    let mut out = String::from("(module\n");
    for (index, shape) in SHAPES.iter().enumerate() {
        let params: Vec<_> = shape.iter().map(|ty| ty.name()).collect();
        out += &format!(
            "  (type $s{index} (func (param i32 i32 {}) (result {})))\n",
            params.join(" "),
            shape[0].name()
        );
    }
    out += r#"  (import "host" "mix" (func $mix (param i32 i64 f32 f64) (result i64)))
  (import "host" "wave" (func $wave (param f64 f32) (result f64)))
  (import "host" "yield" (func $yield (param i32) (result i32)))
  (import "host" "sleep" (func $sleep (param i32) (result f32)))
  (import "host" "back" (func $back (param i32 i32 i64) (result i64)))
  (import "host" "fail" (func $fail (param i32)))
"#;
    let all: Vec<_> = (0..FUNCTIONS).map(|k| format!("$f{k}")).collect();
    // The last places stay empty.
    out += &format!("  (memory (export \"memory\") {pages} {pages})\n  (table {} funcref)\n", FUNCTIONS + 4);
    out += &format!("  (elem (i32.const 0) {})", all.join(" "));
    out += FIXED;
    out += &deep(&mut rng);
    for k in 0..FUNCTIONS {
        out += &function(&mut rng, &format!("$f{k}"), SHAPES[k % SHAPES.len()], true);
    }
    out += &function(&mut rng, "$nested (export \"nested\")", &[I64], false);
    out += &run(&mut rng);
    out + ")\n"
}

/// A function of random statements; its result depends on all its variables.
fn function(rng: &mut Rng, name: &str, params: &[Type], tail: bool) -> String {
    let result = params[0];
    let mut vars: Vec<_> = params.iter().enumerate().map(|(at, &ty)| (ty, format!("$p{at}"))).collect();
    let list: String = vars.iter().map(|(ty, name)| format!(" (param {name} {})", ty.name())).collect();
    let mut locals = String::from("(local $n0 i32) (local $n1 i32) (local $all i64)");
    for ty in Type::ALL {
        for at in 0..2 {
            let name = format!("${}{at}", ty.name());
            locals += &format!(" (local {name} {})", ty.name());
            vars.push((ty, name));
        }
    }
    let mut code = Code::new(rng, vars, result);
    let count = 4 + code.rng.below(5);
    let body = code.statements(count, 0);
    let site = code.site();
    let folds: String = code.vars.iter().map(|(ty, name)| fold(*ty, &format!("(local.get {name})"))).collect();
    // The words that guide the program are not the same in any two fibers.
    let first = "(local.set $i640 (call $fold (i64.const 1) (i64.load (local.get $base))))
    (local.set $i320 (i32.wrap_i64 (i64.shr_u (local.get $i640) (i64.const 17))))
    (local.set $f640 (f64.convert_i64_s (local.get $i640)))
    (local.set $f320 (f32.convert_i32_s (local.get $i320)))";
    let mut last = String::new();
    if tail && code.rng.below(3) == 0 {
        // Its frame is gone from backtraces.
        let shape = SHAPES.iter().position(|shape| shape[0] == result).expect("each type has its shape");
        let to = shape + SHAPES.len() * code.rng.below((FUNCTIONS / SHAPES.len()) as u32) as usize;
        let args = code.operands(shape, LESS, 1);
        last = format!("(if (i32.gt_s (local.get $depth) (i32.const 0)) (then (return_call $f{to} {args})))");
    }
    let value = match result {
        I32 => "(i32.wrap_i64 (i64.rotl (local.get $all) (i64.const 32)))".into(),
        I64 => "(local.get $all)".into(),
        float => format!("({0}.mul ({0}.convert_i64_s (local.get $all)) ({0}.const 0x1p-40))", float.name()),
    };
    format!(
        "  (func {name} (param $base i32) (param $depth i32){list} (result {}) {locals}
    (if (call $spent (local.get $base)) (then (return (local.get $p0))))
    {first}
    {body}{site}
    {folds}(i64.store offset={HEADER}
      (i32.add (local.get $base) (i32.and (i32.wrap_i64 (local.get $all)) (i32.const {MASK}))) (local.get $all))
    {last}
    {value})\n",
        result.name()
    )
}

/// Adds a value to `$all`.
fn fold(ty: Type, value: &str) -> String {
    let bits = match ty {
        I32 => format!("(i64.extend_i32_u {value})"),
        I64 => value.into(),
        F32 => format!("(i64.extend_i32_u (i32.reinterpret_f32 (call $canon32 {value})))"),
        F64 => format!("(i64.reinterpret_f64 (call $canon64 {value}))"),
    };
    format!("(local.set $all (call $fold (local.get $all) {bits}))\n")
}

/// A recursion of up to 256 levels, with values that live across the call, and more of the program below it.
fn deep(rng: &mut Rng) -> String {
    let below = SHAPES.len() * rng.below((FUNCTIONS / SHAPES.len()) as u32) as usize;
    let (turn, factor) = (1 + rng.below(63), rng.next() | 1);
    let vars = vec![(I64, "$x".into()), (F64, "$d".into()), (I32, "$n".into()), (F32, "$f".into())];
    let site = Code::new(rng, vars, I64).site();
    let folds: String =
        [(I64, "$x"), (I32, "$n"), (F32, "$f")].map(|(ty, name)| fold(ty, &format!("(local.get {name})"))).concat();
    format!(
        "  (func $deep (param $base i32) (param $n i32) (param $x i64) (param $d f64) (result i64)
    (local $all i64) (local $f f32)
    (local.set $f (f32.demote_f64 (f64.mul (local.get $d) (f64.const 0.75))))
    (if (i32.or (i32.eqz (local.get $n)) (call $spent (local.get $base)))
      (then (return (call $f{below} (local.get $base) (i32.const 2) (local.get $x) (local.get $d)))))
    (local.set $all (call $deep (local.get $base) (i32.sub (local.get $n) (i32.const 1))
      (i64.mul (i64.rotl (local.get $x) (i64.const {turn})) (i64.const {factor}))
      (f64.add (local.get $d) (f64.convert_i32_s (local.get $n)))))
    {site}
    {folds}
    (local.get $all))\n"
    )
}

/// What a fiber calls: sets up its region, and does what it does over and over, until the fuel is spent.
fn run(rng: &mut Rng) -> String {
    let mut code = Code::new(rng, vec![(I64, "$x".into()), (I64, "$seed".into()), (I32, "$fuel".into())], I64);
    let mut steps: Vec<String> = (0..FUNCTIONS).map(|_| code.statements(1, 0)).collect();
    for k in 0..FUNCTIONS {
        let shape = k % SHAPES.len();
        let call = format!("(call $f{k} {})", code.operands(shape, "(local.get $depth)", 0));
        steps.insert(code.rng.below(steps.len() as u32 + 1) as usize, fold(SHAPES[shape][0], &call));
    }
    // Early, while there is fuel for it.
    let early = code.rng.below(4) as usize;
    let n = "(i32.or (i32.and (local.get $fuel) (i32.const 255)) (i32.const 64))";
    steps.insert(early, fold(I64, &format!("(call $deep (local.get $base) {n} (local.get $all) {})", code.leaf(F64))));
    format!(
        "  (func $run (export \"run\") (param $base i32) (param $seed i64) (result i64)
    (local $all i64) (local $x i64) (local $fuel i32) (local $depth i32) (local $n0 i32) (local $n1 i32)
    (local.set $all (call $fold (i64.const 1) (local.get $seed)))
    (local.set $fuel (i32.add (i32.const 200) (i32.and (i32.wrap_i64 (local.get $all)) (i32.const 2047))))
    (i32.store (local.get $base) (local.get $fuel))
    (i32.store offset=4 (local.get $base) (select (i32.const 0x80000000)
      (i32.rem_u (i32.wrap_i64 (i64.shr_u (local.get $all) (i64.const 32))) (local.get $fuel))
      (i32.wrap_i64 (i64.shr_u (local.get $all) (i64.const 63)))))
    (local.set $depth (i32.const {DEPTH}))
    (loop $again
      {}
      (br_if $again (i32.eqz (call $spent (local.get $base)))))
    (local.get $all))\n",
        steps.concat()
    )
}
