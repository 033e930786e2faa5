//! A check that can't fail is none: what is wrong is noticed, what must not run so doesn't, and fibers do interleave.

use super::effects::{GC, IMPORTS, independent, plain_engine};
use super::run::together;
use super::script::modules;
use super::{Rig, repeats};
use crate::support::Rng;
use crate::support::wast::{self, Script};
use std::collections::{BTreeMap, HashSet};

fn control(text: &str) -> Script {
    Script { folder: "control".into(), name: "control.wast".into(), text: text.to_string().leak() }
}

/// How often each line of a script came out wrong.
fn wrong_lines(rig: &Rig, script: &Script) -> BTreeMap<usize, usize> {
    let mut lines = BTreeMap::new();
    let tally = rig.run_all(std::slice::from_ref(script));
    assert!(tally.fibers > 0);
    tally.wrong.into_iter().for_each(|(_, line, _)| *lines.entry(line).or_default() += 1);
    lines
}

/// Copies of real scripts with one wrong expectation: that one fails, each time that it is made, and no other.
#[test]
fn a_wrong_expectation_is_noticed() {
    const RUNAWAY: &str = "(assert_exhaustion (invoke \"runaway\") \"call stack exhausted\")";
    const DIVISION: &str = "(assert_trap (invoke \"div_s\" (i32.const 1) (i32.const 0)) \"integer divide by zero\")";
    const SUM: &str =
        "(assert_return (invoke \"add\" (f32.const -0x0p+0) (f32.const 0x0p+0)) (f32.const 0x0p+0))";
    let rig = Rig::new();
    for (path, right, from, to) in [
        ("wasm-v3/f32.wast", SUM, "(f32.const 0x0p+0))\n", "(f32.const -0x0p+0))\n"),
        ("wasm-v3/i32.wast", DIVISION, "divide by zero", "overflow"),
        ("wasm-v3/i32.wast", DIVISION, "(i32.const 0)", "(i32.const 1)"),
        ("wasm-v3/call.wast", RUNAWAY, RUNAWAY, "(assert_return (invoke \"runaway\"))"),
        ("wasm-v3/call.wast", RUNAWAY, "runaway", "type-i32"),
    ] {
        let mut script = wast::scripts(path).remove(0);
        assert_eq!(wrong_lines(&rig, &script), BTreeMap::new(), "{path} as it is");
        let (before, after) = script.text.split_once(right).expect("it is there");
        let line = before.lines().count();
        script.text = format!("{before}{}{after}", format!("{right}\n").replace(from, to)).leak();
        let noticed = wrong_lines(&rig, &script);
        println!("{path}:{line}: {noticed:?}");
        assert_eq!(noticed, BTreeMap::from([(line + 1, repeats(&script))]), "{path}: {to}");
    }
}

/// Each way in which a fiber's end can be off, beside one that is right.
#[test]
fn every_kind_of_wrong_result_is_noticed() {
    let script = control(
        r#"(module
          (table funcref (elem $one))
          (func $one (export "one") (result i32) (i32.const 1))
          (func (export "long") (result i64) (i64.const 0x1_0000_0001))
          (func (export "two") (result i32 i64) (i32.const 1) (i64.const 2))
          (func (export "canonical") (result f32) (f32.const -nan))
          (func (export "arithmetic") (result f64) (f64.const nan:0xc_0000_0000_0000))
          (func (export "signalling") (result f32) (f32.const nan:0x20_0000))
          (func (export "vector") (result v128) (v128.const f32x4 nan nan:0x60_0000 1 2))
          (func (export "null") (result funcref) (ref.null func))
          (func (export "function") (result funcref) (table.get (i32.const 0)))
          (func (export "echo") (param v128 f64 funcref) (result f64 v128) (local.get 1) (local.get 0))
          (func (export "unreachable") unreachable))
        (assert_return (invoke "one") (i32.const 1))
        (assert_return (invoke "one") (i32.const 2)) ;; wrong
        (assert_return (invoke "one") (i64.const 1)) ;; wrong
        (assert_return (invoke "one")) ;; wrong
        (assert_return (invoke "long") (i64.const 0x1_0000_0001))
        (assert_return (invoke "long") (i64.const 1)) ;; wrong
        (assert_return (invoke "two") (i32.const 1) (i64.const 2))
        (assert_return (invoke "two") (i32.const 1) (i64.const 3)) ;; wrong
        (assert_return (invoke "two") (i32.const 1)) ;; wrong
        (assert_return (invoke "one") (either (i32.const 7) (i32.const 1)))
        (assert_return (invoke "one") (either (i32.const 7) (i32.const 8))) ;; wrong
        (assert_return (invoke "canonical") (f32.const nan:canonical))
        (assert_return (invoke "canonical") (f32.const nan:arithmetic))
        (assert_return (invoke "canonical") (f32.const -nan))
        (assert_return (invoke "canonical") (f32.const nan)) ;; wrong
        (assert_return (invoke "arithmetic") (f64.const nan:arithmetic))
        (assert_return (invoke "arithmetic") (f64.const nan:canonical)) ;; wrong
        (assert_return (invoke "signalling") (f32.const nan:0x20_0000))
        (assert_return (invoke "signalling") (f32.const nan:arithmetic)) ;; wrong
        (assert_return (invoke "vector") (v128.const f32x4 nan:canonical nan:arithmetic 1 2))
        (assert_return (invoke "vector") (v128.const f32x4 nan:canonical nan:canonical 1 2)) ;; wrong
        (assert_return (invoke "vector") (v128.const f32x4 nan:canonical nan:arithmetic 1 3)) ;; wrong
        (assert_return (invoke "null") (ref.null func))
        (assert_return (invoke "null") (ref.func)) ;; wrong
        (assert_return (invoke "function") (ref.func))
        (assert_return (invoke "function") (ref.null func)) ;; wrong
        (assert_return (invoke "echo" (v128.const i64x2 3 -4) (f64.const 5) (ref.null func))
          (f64.const 5) (v128.const i8x16 3 0 0 0 0 0 0 0 0xfc 0xff 0xff 0xff 0xff 0xff 0xff 0xff))
        (invoke "one")
        (invoke "unreachable") ;; wrong
        (assert_trap (invoke "unreachable") "unreachable")
        (assert_trap (invoke "unreachable") "integer overflow") ;; wrong
        (assert_trap (invoke "one") "unreachable") ;; wrong
        (assert_return (invoke "unreachable")) ;; wrong
        (assert_exhaustion (invoke "unreachable") "call stack exhausted") ;; wrong"#,
    );
    let lines = script.text.lines().enumerate().filter(|(_, line)| line.ends_with(";; wrong"));
    let wanted: BTreeMap<_, _> = lines.map(|(at, _)| (at + 1, repeats(&script))).collect();
    assert_eq!(wanted.len(), 19);
    assert_eq!(wrong_lines(&Rig::new(), &script), wanted);
}

/// A counter that loses counts when fibers of one instance run between each other's steps, and only then. So such an
/// invocation must be left out; made all the same, it proves that they do.
#[test]
fn fibers_of_one_instance_do_interleave() {
    const CALLS: usize = 50;
    let module = "(module (global $count (mut i32) (i32.const 0))
        (func $check)
        (func (export \"count\") (result i32) (local $before i32)
          (local.set $before (global.get $count))
          (call $check)
          (global.set $count (i32.add (local.get $before) (i32.const 1)))
          (local.get $before)))";
    let calls = "(assert_return (invoke \"count\") (i32.const 0))".repeat(CALLS);
    let script = control(&format!("{module}{calls}"));
    let rig = Rig::new();
    let tally = rig.run_all(std::slice::from_ref(&script));
    assert_eq!((tally.fibers, tally.left_out.values().sum()), (0, CALLS));

    let modules = modules(&script, &HashSet::new()).0;
    let report = together(&rig.rt, &rig.engine, "control", &modules, 1, &mut Rng::new(1));
    // One after the other, only the first would find the zero.
    let found_zero = CALLS - report.wrong.len();
    println!("{found_zero} of {CALLS} fibers found the counter at 0, {} lost their turn", report.interleaved);
    assert!(found_zero > CALLS / 2 && report.interleaved > CALLS / 2);
}

/// What may run beside what.
#[test]
fn invocations_that_depend_on_each_other_are_found() {
    const MODULE: &str = r#"
        (memory $memory 1) (table $table 2 funcref) (elem $segment func $pure) (data $data "x")
        (global $constant i32 (i32.const 1)) (global $global (mut i32) (i32.const 1))
        (type $f (func))
        (func $pure (export "pure"))
        (func (export "load") (drop (v128.load8_splat (i32.const 0))))
        (func (export "size") (drop (memory.size)))
        (func $store (export "store") (v128.store8_lane 0 (i32.const 0) (v128.const i64x2 0 0)))
        (func (export "grow") (drop (memory.grow (i32.const 0))))
        (func (export "init") (memory.init $data (i32.const 0) (i32.const 0) (i32.const 0)))
        (func (export "drop") (data.drop $data))
        (func (export "get") (drop (global.get $global)))
        (func (export "set") (global.set $global (i32.const 0)))
        (func (export "table") (drop (table.get $table (i32.const 0))))
        (func (export "element") (elem.drop $segment))
        (func (export "direct") (return_call $store))
        (func (export "indirect") (call_indirect (type $f) (i32.const 0)))
        (func (export "reference") (param (ref $f)) (call_ref $f (local.get 0)))"#;
    // What the script invokes, what of it may run together, and whether the module is registered.
    let cases: [(&[&str], &[&str], bool); 14] = [
        (&["pure", "load", "size", "get", "table"], &["pure", "load", "size", "get", "table"], false),
        (&["pure", "load", "size", "get", "table", "store"], &["pure", "get", "table"], false),
        (&["pure", "load", "size", "get", "grow"], &["pure", "get"], false),
        (&["pure", "load", "init"], &["pure"], false),
        (&["pure", "load", "drop"], &["pure"], false),
        (&["pure", "load", "get", "set"], &["pure", "load"], false),
        (&["pure", "load", "table", "element"], &["pure", "load"], false),
        (&["pure", "load", "get", "direct"], &["pure", "get"], false),
        // It can call whatever the module has.
        (&["pure", "load", "get", "table", "indirect"], &["pure"], false),
        (&["pure", "load", "get", "table", "reference"], &["pure"], false),
        (&["indirect"], &[], false),
        (&["store"], &[], false),
        (&["not there"], &[], false),
        // Others can call the rest.
        (&["pure", "load", "get", "table"], &["pure"], true),
    ];
    let plain = plain_engine();
    let ask = |fields: &str, invoked: &[&str], registered| {
        let wasm = wat(&format!("(module {fields})"));
        let invoked = invoked.iter().map(|name| name.to_string()).collect();
        independent(&plain, &wasm, &invoked, registered)
    };
    for (invoked, wanted, registered) in cases {
        let wanted: HashSet<_> = wanted.iter().map(|name| name.to_string()).collect();
        assert_eq!(ask(MODULE, invoked, registered), Ok(wanted), "{invoked:?}");
    }
    let load = "(memory (export \"memory\") 1) (func (export \"f\") (drop (i32.load (i32.const 0))))";
    assert_eq!(ask(load, &["f"], false), Ok(HashSet::from(["f".to_string()])));
    assert_eq!(ask(load, &["f"], true), Ok(HashSet::new()), "others can write to its memory");
    for (import, allowed) in [
        (r#"(import "spectest" "print_i32" (func (param i32)))"#, true),
        (r#"(import "spectest" "global_i32" (global i32))"#, true),
        (r#"(import "other" "print_i32" (func (param i32)))"#, false),
        (r#"(import "other" "constant" (global i32))"#, false),
        (r#"(import "spectest" "memory" (memory 1))"#, false),
        (r#"(import "spectest" "table" (table 10 funcref))"#, false),
    ] {
        let fields = format!("{import} (func (export \"f\"))");
        let wanted = if allowed { Ok(HashSet::from(["f".to_string()])) } else { Err(IMPORTS) };
        assert_eq!(ask(&fields, &["f"], false), wanted, "{import}");
    }
    for fields in [
        "(func (export \"f\") (param externref))",
        "(table 1 anyref) (func (export \"f\"))",
        "(type $s (struct)) (func (export \"f\") (drop (struct.new $s)))",
        "(tag $t) (func (export \"f\") (throw $t))",
        "(memory 1 1 shared) (func (export \"f\"))",
        "(memory 1) (func (export \"f\") (drop (i32.atomic.load (i32.const 0))))",
    ] {
        assert_eq!(ask(fields, &["f"], false), Err(GC), "{fields}");
    }
}

fn wat(text: &str) -> Vec<u8> {
    let mut wasm = bop::wasm_byte_vec_t::default();
    // SAFETY: the pointer and the length are those of a live text.
    crate::support::ok(unsafe { bop::wasmtime_wat2wasm(text.as_ptr(), text.len(), &mut wasm) });
    wasm.as_slice().to_vec()
}
