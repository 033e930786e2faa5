#!/usr/bin/env python3
"""What libbop.so exports, against what its headers declare.

    symbols.py --cc cc --soname libbop.so.0 --include DIR... path/to/libbop.so

Refuses: a dynamic symbol that is neither BOP's nor of Wasmtime's C API; a function that a header
declares and the library lacks; a function of BOP's that no header declares; another SONAME. Before
that it refuses made-up libraries with each of these faults: a check that lets all pass is noticed.
"""

import argparse
import re
import subprocess
import sys

# What may be exported: BOP's own functions, and Wasmtime's C API.
ALLOWED = re.compile(r"(bop|wasmtime|wasm|wasi)_\w+\Z")
LINE_MARKER = re.compile(r"^#.*$", re.M)
ATTRIBUTE = re.compile(r"__(attribute|asm)(__)?\s*\(")
DECLARED = re.compile(r"\b((?:bop|wasmtime|wasm|wasi)_\w+)\s*\(")


def fail(message):
    sys.exit(f"symbols.py: {message}")


def run(*command, stdin=None):
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def behind_bracket(text, start):
    """The index just behind the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "({":
            depth += 1
        elif text[at] in ")}":
            depth -= 1
            if depth == 0:
                return at + 1
    fail("a bracket of the headers is never closed")
    return None


def statements(text):
    """The declarations at the outermost level of preprocessed C, without anything in braces.

    Read as C, the headers have no braces of `extern "C"`."""
    out, at = [], 0
    text = LINE_MARKER.sub("", text)
    while (attribute := ATTRIBUTE.search(text)) is not None:
        end = behind_bracket(text, attribute.end() - 1)
        text = text[:attribute.start()] + " " + text[end:]
    begin = 0
    while at < len(text):
        if text[at] == ";":
            out.append(text[begin:at])
            begin = at = at + 1
        elif text[at] == "{":
            end = behind_bracket(text, at)
            head = text[begin:at]
            # A function's body ends its declaration; a struct's does not.
            if ")" in head:
                out.append(head)
                begin = end
            else:
                text = text[:at] + " " + text[end:]
                end = at
            at = end
        elif text[at] == "(":
            at = behind_bracket(text, at)
        else:
            at += 1
    return out


def declared_functions(preprocessed):
    """The functions that the library must define: not those whose body is in the header."""
    names = set()
    for statement in statements(preprocessed):
        words = statement.split()
        if not words or words[0] == "typedef" or "static" in words or "inline" in words:
            continue
        match = DECLARED.search(statement)
        # Only what is before the first bracket is the name; behind it are parameters.
        if match is not None and "(" not in statement[:match.start()]:
            names.add(match.group(1))
    return names


def headers(compiler, folders):
    """bop.h and what it includes, under the feature macros of this build."""
    includes = [f"-I{folder}" for folder in folders]
    return run(compiler, "-std=c11", "-E", *includes, "-x", "c", "-",
               stdin="#include <wasi.h>\n#include <bop.h>\n")


def exported(library):
    """The defined dynamic symbols, without a version."""
    lines = run("nm", "-D", "--defined-only", "--format=posix", library).splitlines()
    return {line.split()[0].split("@")[0] for line in lines if line.strip()}


def soname(library):
    match = re.search(r"\(SONAME\).*\[(.+)\]", run("readelf", "-d", "-W", library))
    return match.group(1) if match else None


def faults(symbols, declared, name, wanted_name):
    """All that is wrong, as lines of text."""
    found = [f"exported, and not of the API: {symbol}"
             for symbol in sorted(symbols) if not ALLOWED.match(symbol)]
    found += [f"declared and not exported: {symbol}" for symbol in sorted(declared - symbols)]
    found += [f"exported and not declared: {symbol}"
              for symbol in sorted(symbols - declared) if symbol.startswith("bop_")]
    if name != wanted_name:
        found.append(f"the SONAME is {name}, not {wanted_name}")
    return found


SAMPLE = """
# 1 "sample.h" 1
typedef struct bop_a_t { int (*bop_field)(int); } bop_a_t;
typedef void (*bop_callback_t)(void *);
typedef wasm_trap_t *bop_typedef(int);
struct bop_b { int x; } ;
enum bop_e { BOP_X = 0, BOP_Y = (1) };
int bop_one(void (*callback)(int bop_parameter), struct bop_b *) __attribute__((warn_unused(2)));
extern __attribute__((visibility("default"))) const char *wasmtime_two(void)
 ;
static inline void wasm_three(void) { if (1) { wasm_hidden(3); } }
inline void assertions(void) { _Static_assert(sizeof(int) == 4, ""); }
wasm_trap_t *wasm_four(int), *not_a_function;
"""


def controls():
    """Each fault, made up, must be found; and a faultless library must pass."""
    wanted = {"bop_one", "wasmtime_two", "wasm_four"}
    got = declared_functions(SAMPLE)
    if got != wanted:
        fail(f"control: read {sorted(got)} from the sample header, not {sorted(wanted)}")
    good = {"bop_one", "wasmtime_two", "wasm_four", "wasi_extra"}
    cases = [
        ("nothing wrong", good, "libbop.so.0", 0),
        ("a symbol too many", good | {"rust_eh_personality"}, "libbop.so.0", 1),
        ("a prefix too short", good | {"bop"}, "libbop.so.0", 1),
        ("a symbol too few", good - {"wasm_four"}, "libbop.so.0", 1),
        ("an undeclared symbol", good | {"bop_secret"}, "libbop.so.0", 1),
        ("another SONAME", good, "libbop.so", 1),
        ("no SONAME", good, None, 1),
        ("an empty library", set(), "libbop.so.0", 3),
    ]
    for what, symbols, name, count in cases:
        found = faults(symbols, wanted, name, "libbop.so.0")
        if len(found) != count:
            fail(f"control: {what}: found {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cc", default="cc", help="the compiler that reads the headers")
    parser.add_argument("--soname", required=True)
    parser.add_argument("--include", action="append", required=True, help="a folder of headers")
    parser.add_argument("library")
    options = parser.parse_args()

    controls()
    symbols = exported(options.library)
    declared = declared_functions(headers(options.cc, options.include))
    for prefix in ("bop_", "wasmtime_", "wasm_", "wasi_"):
        counts = (sum(name.startswith(prefix) for name in names) for names in (symbols, declared))
        print("{:10} {:4} exported {:4} declared".format(prefix, *counts))
        if not any(name.startswith(prefix) for name in declared):
            fail(f"the headers declare no {prefix}* at all: they were not read")
    found = faults(symbols, declared, soname(options.library), options.soname)
    if found:
        fail("\n  ".join([f"{len(found)} faults in {options.library}", *found]))
    print(f"SONAME     {options.soname}")
    spare = sorted(symbols - declared)
    if spare:
        print("exported by Wasmtime and in no header:", " ".join(spare))


if __name__ == "__main__":
    main()
