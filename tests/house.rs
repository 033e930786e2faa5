//! What the house promises of itself: arrows between the layers point down only, and documents name
//! what exists.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

/// Each layer may use those before it.
const LAYERS: [&str; 6] = ["sys", "fiber", "sched", "wasm", "runtime", "capi"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder; those of a folder of sources with the folders in it.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.to_string_lossy().ends_with(ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            } else if path.is_dir() && folder.starts_with("src") {
                folders.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no *{ending}");
    found
}

/// The layers that a source file of `layer` may not use but does.
fn upward(layer: usize, text: &str) -> Vec<&'static str> {
    let above = LAYERS[layer + 1..].iter();
    above.copied().filter(|name| text.contains(&format!("crate::{name}"))).collect()
}

#[test]
fn arrows_point_down_only() {
    for (layer, name) in LAYERS.iter().enumerate() {
        for (path, text) in files(&format!("src/{name}"), ".rs") {
            assert!(upward(layer, &text).is_empty(), "{}: {:?}", path.display(), upward(layer, &text));
        }
    }
    assert_eq!(upward(1, "use crate::sched::Worker;"), ["sched"]);
}

/// Only one layer names each of the crates that a layer is there for.
#[test]
fn each_crate_has_its_layer() {
    let owners = [
        ("corosensei::", "fiber"),
        ("crossbeam_deque::", "sched"),
        ("wasmtime_environ::", "wasm"),
        ("wasmparser::", "wasm"),
        ("wasm_encoder::", "wasm"),
    ];
    for (krate, owner) in owners {
        for layer in LAYERS {
            for (path, text) in files(&format!("src/{layer}"), ".rs") {
                let uses = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(krate));
                assert!(!uses || layer == owner, "{} names {krate}", path.display());
            }
        }
    }
}

/// Names in backticks that start like ours must exist: C functions and constants in the header, tests in the
/// sources.
#[test]
fn documents_name_what_exists() {
    let header = files("include", ".h").into_iter().map(|(_, text)| text).collect::<String>();
    let words: std::collections::HashSet<_> =
        header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let mut tests = String::new();
    for folder in ["src", "src/fiber", "tests"] {
        files(folder, ".rs").iter().for_each(|(_, text)| tests.push_str(text));
    }
    let mut documents = files("docs", ".md");
    documents.extend(files(".", "README.md"));
    let mut checked = 0;
    for (path, text) in &documents {
        for word in text.split('`').skip(1).step_by(2) {
            let word = word.trim_end_matches("()");
            let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let is_test = word.strip_prefix('w').is_some_and(|w| {
                w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('_')
            });
            let exists = match word {
                _ if !plain => continue,
                // Names of groups, such as `bop_config_`, were cut by their `*`.
                _ if word.starts_with("bop_") || word.starts_with("BOP_") => words.contains(word),
                _ if is_test => tests.contains(&format!("fn {word}()")),
                _ => continue,
            };
            assert!(exists, "{} names {word}, which there is not", path.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "found only {checked} names");
}

#[test]
fn the_readme_quotes_the_example_as_it_is() {
    let example = std::fs::read_to_string(root().join("examples/hello/hello.c")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&example), "README.md and examples/hello/hello.c differ");
}
