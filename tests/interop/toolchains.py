"""Build the clients of this folder below build/interop/, each with the tools of its language."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import google.rpc  # type: ignore[import-untyped]

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parents[1]
OUT = ROOT / "build" / "interop"
TIMEOUT_S = 1800

# Folders of riskd's protos, of health checking, and of google.rpc.
_FOLDERS = [ROOT / "proto", SOURCES / "protos", Path(next(iter(google.rpc.__path__))).parents[1]]
HEALTH_PROTOS = ":".join(map(str, _FOLDERS))
PROTOS = ("riskd/v1/types.proto", "riskd/v1/order_risk_service.proto")

GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1",
)


class AbsentError(Exception):
    """A tool that a client needs is not there; the message says which."""


class BuildError(Exception):
    """A client cannot be built with the tools that are there; the message says why."""


def _run(
    command: Sequence[str | Path], folder: Path = ROOT, variables: dict[str, str] | None = None
) -> str:
    try:
        done = subprocess.run(
            [*map(str, command)],
            cwd=folder,
            env={**os.environ, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        raise AbsentError(f"there is no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{Path(command[0]).name} did not end in {TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise BuildError(
            f"{Path(command[0]).name} failed: {done.stderr[-2000:] or done.stdout[-2000:]}"
        )
    return done.stdout


def _need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            raise AbsentError(f"there is no {tool}")


def _folder(name: str) -> Path:
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _copied(name: str) -> Path:
    """Copy the sources, for tools that write beside them."""
    folder = _folder(name)
    shutil.copytree(SOURCES / name, folder, dirs_exist_ok=True)
    return folder


def protoc() -> Path:
    """Return a protoc of grpcio-tools, for tools that ask for a program."""
    path = _folder("bin") / "protoc"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grpc_tools.protoc "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def go_program(module: str) -> Path:
    """Return a program of the Go module proxy."""
    name = module.rpartition("/")[2].partition("@")[0]
    path = _folder("bin") / name
    if not path.exists():
        _need("go")
        _run(["go", "install", module], variables={"GOBIN": str(path.parent)})
    return path


def go_tool(name: str, package: str) -> Path:
    """Return a program of a module here, NAME-module, that says which versions it is built from."""
    path = _folder("bin") / name
    if not path.exists():
        _need("go")
        _run(["go", "build", "-o", path, package], _copied(f"{name}-module"))
    return path


def build_python() -> list[str | Path]:
    """Return grpcio's client, which needs nothing more."""
    return [sys.executable, SOURCES / "python" / "client.py"]


def build_go() -> list[str | Path]:
    """Generate with protoc-gen-go and build with the Go command."""
    _need("go")
    folder = _copied("go")
    for plugin in GO_PLUGINS:
        go_program(plugin)
    package = "interop/riskdv1"
    names = [f"M{proto}={package}" for proto in PROTOS]
    options = [f"--{each}_opt={name}" for name in names for each in ("go", "go-grpc")]
    options += [f"--{each}_opt=module=interop" for each in ("go", "go-grpc")]
    path = os.pathsep.join([str(OUT / "bin"), os.environ["PATH"]])
    _run(
        [
            *(protoc(), f"-I{ROOT / 'proto'}", f"--go_out={folder}", f"--go-grpc_out={folder}"),
            *(*options, *PROTOS),
        ],
        variables={"PATH": path},
    )
    _run(["go", "build", "-o", "client", "."], folder, {"GOFLAGS": "-buildvcs=false"})
    return [folder / "client"]


def build_java() -> list[str | Path]:
    """Build with Maven, whose plugin fetches protoc and grpc-java's generator."""
    _need("java", "mvn")
    out = _folder("java")
    _run(["mvn", "--quiet", "--batch-mode", f"-Dout={out}", "package"], SOURCES / "java")
    return ["java", "-cp", f"{out / 'interop.jar'}:{out / 'lib'}/*", "interop.Client"]


def build_js() -> list[str | Path]:
    """Install from npm; the protos are read at run time."""
    _need("node", "npm")
    folder = _copied("js")
    _run(["npm", "ci", "--silent", "--no-fund", "--no-audit"], folder)
    return ["node", folder / "client.js"]


def build_rust() -> list[str | Path]:
    """Build with Cargo; tonic generates in the build."""
    _need("cargo")
    out = _folder("rust")
    variables = {
        "CARGO_TARGET_DIR": str(out),
        "INTEROP_PROTOS": str(ROOT / "proto"),
        "PROTOC": str(protoc()),
    }
    manifest = SOURCES / "rust" / "Cargo.toml"
    _run(
        ["cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", manifest],
        variables=variables,
    )
    return [out / "release" / "interop"]


def build_cpp() -> list[str | Path]:
    """Build with Debian's C++ gRPC and the generator that belongs to it."""
    _need("g++", "protoc", "grpc_cpp_plugin", "pkg-config")
    folder = _folder("cpp")
    client = folder / "client"
    sources = [SOURCES / "cpp" / "client.cc", *(ROOT / "proto" / proto for proto in PROTOS)]
    if client.exists() and all(
        source.stat().st_mtime <= client.stat().st_mtime for source in sources
    ):
        return [client]
    packages = _run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"]).split()
    others = ("grpc/health/v1/health", "google/rpc/status", "google/rpc/error_details")
    protos = [*PROTOS, *(f"{each}.proto" for each in others)]
    _run(
        [
            *("protoc", *(f"-I{each}" for each in _FOLDERS), f"--cpp_out={folder}"),
            f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}",
            *(f"--grpc_out={folder}", *protos),
        ]
    )
    generated = sorted(folder.rglob("*.pb.cc"))
    flags = ["-std=c++17", "-O1", f"-I{folder}"]
    _run(["g++", *flags, sources[0], *generated, "-o", client, *packages])
    return [client]


# What builds each client and returns its command; raises AbsentError, BuildError.
BUILDERS: dict[str, Callable[[], list[str | Path]]] = {
    "grpcio": build_python,
    "grpc-go": build_go,
    "grpc-java": build_java,
    "grpc-js": build_js,
    "tonic": build_rust,
    "grpc-c++": build_cpp,
}
