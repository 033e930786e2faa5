//! `include/bop.h` is what cbindgen makes of the source, says the same things about every function, and
//! every function's body is guarded. `BOP_WRITE_HEADER=1` writes it.
#![allow(missing_docs)]

use std::path::Path;

/// What cbindgen makes, with Rust's heading "Safety" in C's words.
fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_root_or_default(root);
    let bindings = cbindgen::Builder::new().with_crate(root).with_config(config).generate();
    let mut out = Vec::new();
    bindings.expect("cbindgen").write(&mut out);
    let text = String::from_utf8(out).unwrap();
    text.replace(" *\n * # Safety\n *\n * ", " * Requires: ")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/bop.h");
    let new = generate();
    if std::env::var_os("BOP_WRITE_HEADER").is_some() {
        std::fs::write(&path, &new).unwrap();
    }
    let old = std::fs::read_to_string(&path).unwrap();
    assert!(old == new, "include/bop.h is stale: run `make header`");
}

/// The functions of the header, each with the comment above it.
fn functions(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut declaration = String::new();
    for line in header.lines() {
        if line.starts_with("/**") {
            comment.clear();
        }
        if line.starts_with("/**") || line.starts_with(" *") {
            comment.push_str(line);
            comment.push('\n');
            declaration.clear();
            continue;
        }
        declaration.push_str(line);
        if line.ends_with(';') {
            let name = declaration.split('(').next().unwrap_or("").rsplit([' ', '*']).next();
            let is_function = declaration.contains('(') && !declaration.starts_with("typedef");
            if let (true, Some(name)) = (is_function, name) {
                found.push((name.to_string(), format!("{comment}{declaration}")));
            }
            declaration.clear();
            comment.clear();
        }
    }
    found
}

/// What is missing from a function's comment.
fn gaps(text: &str) -> Vec<&'static str> {
    let returns = !text.lines().last().is_some_and(|declaration| declaration.starts_with("void "));
    let mut wanted = vec![" Context: ", " Switches: "];
    if returns {
        wanted.push(" Returns: ");
    }
    let owns = ["**out", "_new(", "_delete(", "_clone(", "_detach(", "take_trap(", "bop_config_wasm("];
    if owns.iter().any(|word| text.lines().last().is_some_and(|line| line.contains(word))) {
        wanted.push(" Ownership: ");
    }
    wanted.into_iter().filter(|word| !text.contains(word)).collect()
}

#[test]
fn every_function_says_what_a_caller_must_know() {
    let functions = functions(&generate());
    assert!(functions.len() > 50, "found only {}", functions.len());
    for (name, text) in &functions {
        assert!(gaps(text).is_empty(), "{name} says nothing of {:?}", gaps(text));
    }
    assert_eq!(gaps("/**\n * Context: any.\n */\nint bop_f(void);"), [" Switches: ", " Returns: "]);
}

/// Functions that have nothing in them that can panic: those that pick a string, and the one whose
/// every frame costs time.
const UNGUARDED: [&str; 5] =
    ["bop_version", "bop_status_name", "bop_outcome_name", "bop_state_name", "bop_yield"];

#[test]
fn no_panic_leaves_an_exported_function() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/capi");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let body = function.split("\n}\n").next().unwrap();
            let name = body.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            let guarded = [" call(", " fallible(", " set("].iter().any(|guard| body.contains(guard));
            let excepted = UNGUARDED.contains(&name);
            assert!(guarded != excepted, "{}: guarded {guarded}: {body}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "found only {seen}");
}

/// The words that stand between two marks in the text, each time.
fn between<'a>(text: &'a str, from: &'a str, to: &'a str) -> Vec<&'a str> {
    let mut found: Vec<_> =
        text.split(from).skip(1).filter_map(|rest| rest.split(to).next()).collect();
    found.sort_unstable();
    found
}

/// What `bop_guest.h` declares is what `bop_linker_define` defines, name by name; and the numbers of its
/// statuses are those of `bop_status_t`, where both have them.
#[test]
fn the_header_for_guests_declares_what_is_defined() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(root.join("include/bop_guest.h")).unwrap();
    let mut defined = String::new();
    for file in std::fs::read_dir(root.join("src/runtime/guest")).unwrap() {
        defined.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    let declared: Vec<_> =
        between(&header, "\nBOP_GUEST_IMPORT(", ")").into_iter().chain(["exit"]).collect();
    let mut declared: Vec<_> = declared.into_iter().map(String::from).collect();
    declared.sort_unstable();
    let defined = between(&defined, "func_wrap(MODULE, \"", "\"");
    assert_eq!(declared, defined);
    assert!(declared.len() > 12, "{declared:?}");

    let host = generate();
    let mut same = 0;
    for line in header.lines().filter_map(|line| line.trim().strip_prefix("BOP_GUEST_")) {
        if let Some((name, number)) = line.split_once(" = ")
            && let Some(line) = host.lines().find(|l| l.trim().starts_with(&format!("BOP_{name} = ")))
        {
            assert!(line.contains(&format!(" = {number}")), "BOP_GUEST_{name} is not {line}");
            same += 1;
        }
    }
    assert!(same >= 5, "only {same} statuses compared");
}
