"""Generate the protobuf and gRPC code of proto/ for riskd and for the Python client.

Writes riskd/v1/ and, where clients/python/ exists, clients/python/riskd_client/v1/: the same code
under the client's own package, so that the client installs without riskd. Both are ignored by
git. Does nothing if the output is newer than the input.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
SERVER = ROOT / "riskd"
CLIENT = ROOT / "clients" / "python" / "riskd_client"
INIT = '"""Generated from proto/riskd/v1. Do not edit."""\n'


def run_protoc(sources: list[Path], output: Path) -> None:
    """Generate modules, gRPC stubs and type stubs of sources below output."""
    # In an isolated build the plugins are on PATH, in a virtual environment beside the interpreter.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    plugins = []
    for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc"):
        plugin = shutil.which(name, path=path)
        if plugin is None:
            sys.exit(f"{name} not found: pip install mypy-protobuf")
        plugins.append(f"--plugin={name}={plugin}")
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"--proto_path={PROTO}", f"--proto_path={files('grpc_tools') / '_proto'}"),
        *plugins,
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *map(str, sources),
    ]
    subprocess.run(command, check=True)


def for_client(text: str) -> str:
    """Return generated text with Python names moved from riskd.v1 to riskd_client.v1.

    Only Python modules move: the protobuf package, and with it the path of every RPC and the
    serialised descriptors, stays riskd.v1.
    """
    text = re.sub(r"^(from|import) riskd\.v1\b", r"\1 riskd_client.v1", text, flags=re.M)
    return re.sub(r"\briskd\.v1\.(\w+_pb2)", r"riskd_client.v1.\1", text)


def is_fresh(inputs: list[Path], packages: list[Path]) -> bool:
    """Return whether each package holds the code of exactly these inputs."""
    newest = max(path.stat().st_mtime_ns for path in inputs)
    modules = {f"{path.stem}_pb2.py" for path in inputs if path.suffix == ".proto"}
    for package in packages:
        if {path.name for path in package.glob("*_pb2.py")} != modules:
            return False
        if min((path.stat().st_mtime_ns for path in package.glob("*.py*")), default=0) < newest:
            return False
    return True


def write_package(package: Path, texts: dict[str, str]) -> None:
    """Replace the content of package by texts."""
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for name, text in texts.items():
        (package / name).write_text(text, encoding="utf-8")


def main() -> None:
    sources = sorted((PROTO / "riskd" / "v1").glob("*.proto"))
    if not sources:
        sys.exit(f"no .proto files in {PROTO / 'riskd' / 'v1'}")
    has_client = CLIENT.parent.is_dir()
    packages = [SERVER / "v1", *([CLIENT / "v1"] if has_client else [])]
    if is_fresh([*sources, Path(__file__)], packages):
        return
    with tempfile.TemporaryDirectory() as output:
        run_protoc(sources, Path(output))
        generated = sorted((Path(output) / "riskd" / "v1").iterdir())
        texts = {path.name: path.read_text(encoding="utf-8") for path in generated}
    texts["__init__.py"] = INIT
    write_package(SERVER / "v1", texts)
    if has_client:
        write_package(CLIENT / "v1", {name: for_client(text) for name, text in texts.items()})
    print(f"generated {len(sources)} proto files into {' and '.join(map(str, packages))}")


if __name__ == "__main__":
    main()
