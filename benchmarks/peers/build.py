"""Build the peers and clients of listener.py into build/peers/, each once for its sources."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parents[1]
OUT = ROOT / "build" / "peers"
PROTOS = [
    ROOT / "proto" / "riskd" / "v1" / f"{stem}.proto" for stem in ("types", "order_risk_service")
]


@dataclass(frozen=True, slots=True)
class Program:
    """A program of one source file, and what must be there to build it."""

    source: str
    packages: tuple[str, ...] = ()  # Of pkg-config.
    debian: str = "gcc libc6-dev"


NGHTTP2 = "gcc libnghttp2-dev pkg-config"
GRPC = "g++ libgrpc++-dev protobuf-compiler-grpc pkg-config"
PROGRAMS = {
    "pingpong": Program("pingpong.c"),
    "echo_nghttp2": Program("echo_nghttp2.c", ("libnghttp2",), NGHTTP2),
    "load": Program("load.c", ("libnghttp2", "openssl"), f"{NGHTTP2} libssl-dev"),
    "echo_grpc": Program("echo_grpc.cc", ("grpc++", "protobuf"), GRPC),
    "client_grpc": Program("client_grpc.cc", ("grpc++", "protobuf"), GRPC),
}


class MissingError(Exception):
    """A program cannot be built here; the message says what is missing."""


def build(name: str) -> Path:
    """Return the program, built if it is older than its sources. Raises MissingError."""
    program = PROGRAMS[name]
    target = OUT / name
    OUT.mkdir(parents=True, exist_ok=True)
    inputs = [SOURCES / program.source, SOURCES / "histogram.h", Path(__file__)]
    in_cplusplus = program.source.endswith(".cc")
    if in_cplusplus:
        inputs += PROTOS
    if _is_newer(target, inputs):
        return target
    try:
        flags = _package_flags(program.packages)
        if in_cplusplus:
            compiler = [os.environ.get("CXX", "g++"), "-std=c++17"]
            objects = _generated_objects(compiler)
            warnings: list[str] = []
        else:
            compiler = [os.environ.get("CC", "cc"), "-std=c11"]
            objects = []
            warnings = ["-Wall", "-Wextra", "-Wshadow"]
        source = str(SOURCES / program.source)
        own = ["-O2", *warnings, f"-I{OUT}", source, *objects, "-o", str(target)]
        _run([*compiler, *own, *flags])
    except MissingError as error:
        raise MissingError(f"{name} needs Debian's {program.debian}: {error}") from None
    return target


def _is_newer(target: Path, inputs: Sequence[Path]) -> bool:
    return target.exists() and all(
        path.stat().st_mtime <= target.stat().st_mtime for path in inputs
    )


def _package_flags(packages: Sequence[str]) -> list[str]:
    return _run(["pkg-config", "--cflags", "--libs", *packages]).split() if packages else []


def _generated_objects(compiler: Sequence[str]) -> list[str]:
    """Generate and compile the C++ code of the protos, and return the objects."""
    plugin = shutil.which("grpc_cpp_plugin")
    if plugin is None:
        raise MissingError("there is no grpc_cpp_plugin")
    _run(
        [
            *("protoc", f"-I{ROOT / 'proto'}", f"--cpp_out={OUT}", f"--grpc_out={OUT}"),
            *(f"--plugin=protoc-gen-grpc={plugin}", *map(str, PROTOS)),
        ]
    )
    objects = []
    for stem in (*(f"{proto.stem}.pb" for proto in PROTOS), "order_risk_service.grpc.pb"):
        source = OUT / "riskd" / "v1" / f"{stem}.cc"
        path = source.with_suffix(".o")
        if not _is_newer(path, PROTOS):
            _run([*compiler, "-O2", f"-I{OUT}", "-c", str(source), "-o", str(path)])
        objects.append(str(path))
    return objects


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingError(f"there is no {command[0]}") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise MissingError(f"{command[0]} failed: {lines[0]}")
    return done.stdout
