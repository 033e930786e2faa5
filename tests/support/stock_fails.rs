//! The scripts of the core suite that Wasmtime 48.0.8 itself fails, and why.

const MULTI_MEMORY: &str = "written before multi-memory: asserts that a second memory is invalid";
const MEMORY_INDEX: &str =
    "written before multi-memory: asserts that a memory index of several bytes is malformed";
const LIMITS: &str =
    "written before memory64, whose limits have more bytes: asserts that a sixth byte is malformed";
const TABLES: &str = "written before reference types: asserts that a second table is invalid";
const ELEM_INDEX: &str = "wants the element's index in the trap's message";
const SEGMENTS: &str =
    "written before bulk memory: asserts that a failed instantiation writes no segment";
const BR_TABLE: &str = "asserts a type mismatch in dead code that is valid by today's rules";
const DESCRIPTORS: &str = "custom descriptors: not implemented by Wasmtime 48";

/// `folder/name` and the reason.
pub const STOCK_FAILS: &[(&str, &str)] = &[
    ("custom-descriptors/array_new_exact.wast", DESCRIPTORS),
    ("custom-descriptors/binary-descriptors.wast", DESCRIPTORS),
    ("custom-descriptors/br_on_cast.wast", DESCRIPTORS),
    ("custom-descriptors/br_on_cast_desc_eq.wast", DESCRIPTORS),
    (
        "custom-descriptors/br_on_cast_desc_eq_fail.wast",
        DESCRIPTORS,
    ),
    ("custom-descriptors/br_on_cast_fail.wast", DESCRIPTORS),
    ("custom-descriptors/descriptors.wast", DESCRIPTORS),
    ("custom-descriptors/exact-casts.wast", DESCRIPTORS),
    ("custom-descriptors/exact-func-import.wast", DESCRIPTORS),
    ("custom-descriptors/exact.wast", DESCRIPTORS),
    ("custom-descriptors/ref_cast_desc_eq.wast", DESCRIPTORS),
    ("custom-descriptors/ref_get_desc.wast", DESCRIPTORS),
    ("custom-descriptors/struct_new_desc.wast", DESCRIPTORS),
    ("function-references/binary.wast", MEMORY_INDEX),
    ("memory64/binary.wast", MEMORY_INDEX),
    ("memory64/memory.wast", MULTI_MEMORY),
    ("memory64/memory64.wast", MULTI_MEMORY),
    ("multi-value/binary.wast", MEMORY_INDEX),
    ("mutable-global/linking.wast", SEGMENTS),
    ("reference-types/binary-leb128.wast", LIMITS),
    ("reference-types/binary.wast", LIMITS),
    ("reference-types/imports.wast", MULTI_MEMORY),
    ("reference-types/unreached-invalid.wast", BR_TABLE),
    ("threads/imports.wast", TABLES),
    ("threads/memory.wast", MULTI_MEMORY),
    ("wasm-v1/binary-leb128.wast", LIMITS),
    ("wasm-v1/elem.wast", ELEM_INDEX),
    ("wasm-v1/imports.wast", MULTI_MEMORY),
    ("wasm-v1/memory.wast", MULTI_MEMORY),
    ("wasm-v2/binary-leb128.wast", LIMITS),
    ("wasm-v2/binary.wast", MEMORY_INDEX),
    ("wasm-v2/imports.wast", MULTI_MEMORY),
    ("wasm-v2/memory.wast", MULTI_MEMORY),
];
