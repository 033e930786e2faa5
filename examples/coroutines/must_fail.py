#!/usr/bin/env python3
"""A negative control: runs the example with hooks left out, and succeeds if that fails. It must have
begun, so that a library that is missing does not count; a crash, wrong results and a hang do.

    must_fail.py PROGRAM --hooks none|pointer
"""

import os
import resource
import subprocess
import sys

RIGHT, BEGUN = "every result is right", "coroutines in"


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main():
    command = sys.argv[1:]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                              preexec_fn=no_core, env={**os.environ, "RUST_BACKTRACE": "0"})
        output, how = done.stdout, f"ended with status {done.returncode}"
    except subprocess.TimeoutExpired as hung:
        output, how = hung.stdout or b"", "hung"
        done = None
    text = output.decode(errors="replace")
    # The beginning tells what went wrong; what else three threads say of it is left out.
    print("\n".join(text.splitlines()[:12]))
    print(f"must_fail: {' '.join(command[1:])}: {how}")
    if BEGUN not in text:
        sys.exit("must_fail: it did not even begin")
    if RIGHT in text or (done is not None and done.returncode == 0):
        sys.exit("must_fail: it was to fail, and did not: the test can't tell right from wrong")


if __name__ == "__main__":
    main()
