//! Names the shared library for the dynamic linker, and tells CMake where Wasmtime's headers are.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    soname();
    wasmtime_headers();
}

/// `libbop.so.<major>`: what a program linked with the library asks for at run time. CMakeLists.txt
/// makes the files of these names from the version in Cargo.toml, as this does.
fn soname() {
    let major = variable("CARGO_PKG_VERSION_MAJOR");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libbop.so.{major}");
}

/// Wasmtime's build script leaves the headers of this very build, with its feature macros, in a
/// folder whose name holds a hash, and cargo tells that name to nobody but us. It is written down
/// beside the libraries, relative to them so that a target folder may be moved.
fn wasmtime_headers() {
    let include = PathBuf::from(variable("DEP_WASMTIME_C_API_INCLUDE"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    // <target>/<profile>/build/bop-<hash>/out
    let profile = out_dir
        .ancestors()
        .nth(3)
        .unwrap_or_else(|| panic!("OUT_DIR is not where cargo puts it: {}", out_dir.display()));
    let path = include.strip_prefix(profile).unwrap_or(&include);
    write_if_changed(
        &profile.join("wasmtime-include.txt"),
        &format!("{}\n", path.display()),
    );
}

fn write_if_changed(file: &Path, text: &str) {
    if fs::read_to_string(file).is_ok_and(|old| old == text) {
        return;
    }
    fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
