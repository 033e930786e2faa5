"""libbop loaded late, by dlopen, where its thread-locals are not part of the program's own block: the
thread-local word must be found there too, and a fiber must run. Usage: dlopen.py LIBBOP"""

import ctypes
import sys


def main(path):
    lib = ctypes.CDLL(path)
    pointer = ctypes.c_void_p
    for name in "wasmtime_store_tls_init bop_runtime_new bop_runtime_start bop_spawn_host bop_runtime_delete".split():
        getattr(lib, name).restype = pointer

    def ok(error):
        if error is not None:
            sys.exit(f"dlopen.py: an error came back: {error:#x}")

    ok(lib.wasmtime_store_tls_init())
    runtime, fiber, outcome = pointer(), pointer(), ctypes.c_int(77)
    ok(lib.bop_runtime_new(None, ctypes.byref(runtime)))
    ok(lib.bop_runtime_start(runtime))

    turns = []

    @ctypes.CFUNCTYPE(ctypes.c_int64, pointer)
    def host(_env):
        turns.append(1)  # Python keeps state of its own per thread: no suspension in here
        return 42

    for _ in range(3):
        ok(lib.bop_spawn_host(runtime, host, None, None, None, ctypes.byref(fiber)))
        status = lib.bop_fiber_join(fiber, ctypes.byref(outcome))
        if (status, outcome.value) != (0, 0):
            sys.exit(f"dlopen.py: join gave {status}, outcome {outcome.value}")
        lib.bop_fiber_detach(fiber)
    ok(lib.bop_runtime_delete(runtime))
    if len(turns) != 3:
        sys.exit(f"dlopen.py: {len(turns)} fibers ran, not 3")


main(sys.argv[1])
