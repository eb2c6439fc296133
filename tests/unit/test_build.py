"""What setup.py builds where libraries are missing."""

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip("Cython")

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "ext" / "riskd" / "core").glob("*.pyx"))
NEEDED = {
    "listener": ["nghttp2", "ssl", "crypto"],
    "session": ["nghttp2", "crypto"],
    "tls": ["ssl", "crypto"],
}


def libraries() -> dict[str, list[str] | None]:
    """Return the libraries of each module of the core, as setup.py finds them."""
    spec = spec_from_file_location("riskd_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return {each: module.libraries_of(each) for each in MODULES}


def has(package: str) -> bool:
    return subprocess.run(["pkg-config", "--exists", package], check=False).returncode == 0


@pytest.mark.parametrize("missing", ["libraries", "pkg-config"])
def test_without_libraries_the_native_door_is_left_out_and_nothing_else(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        ("PKG_CONFIG_LIBDIR", "PATH") if missing == "pkg-config" else ("PKG_CONFIG_LIBDIR",)
    ):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("PKG_CONFIG_PATH", raising=False)
    found = libraries()
    assert {each for each in MODULES if found[each] is None} == set(NEEDED)
    assert all(found[each] == [] for each in MODULES if each not in NEEDED)


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config")
def test_a_module_is_linked_with_the_libraries_that_it_needs() -> None:
    if not (has("libnghttp2") and has("openssl")):
        pytest.skip("no libnghttp2 or OpenSSL")
    assert {each: found for each, found in libraries().items() if found != []} == NEEDED
