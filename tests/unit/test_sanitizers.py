"""A build with sanitizers has them in each module, and they find what they are there for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import riskd.core

# What each module calls in such a build, by RISKD_DEBUG.
CALLED = {
    "1": (b"__asan_init", b"__ubsan_handle_type_mismatch_v1_abort"),
    "thread": (b"__tsan_init",),
}
ASKED = os.environ.get("RISKD_DEBUG") or "0"
BEYOND = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
ctypes.memset(libc.malloc(8), 0, 9)
"""


def test_each_module_has_the_sanitizers_that_are_asked_for() -> None:
    modules = [path for each in riskd.core.__path__ for path in Path(each).glob("*.so")]
    assert modules
    for path in modules:
        content = path.read_bytes()
        for flavour, names in CALLED.items():
            found = [name in content for name in names]
            assert found == [flavour == ASKED] * len(names), path


@pytest.mark.skipif(ASKED != "1", reason="it takes a build with ASan: make test-debug")
def test_a_write_beyond_what_was_allocated_is_found() -> None:
    options = os.environ["ASAN_OPTIONS"] + " log_path=stderr"
    done = subprocess.run(
        [sys.executable, "-c", BEYOND],
        env=os.environ | {"ASAN_OPTIONS": options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "heap-buffer-overflow" in done.stderr
