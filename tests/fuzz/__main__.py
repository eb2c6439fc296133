"""Fuzz the core with libFuzzer, ASan and UBSan: what must hold is in targets.py.

The corpus of a target is corpus/TARGET.txt, an input a line in hexadecimal: what opened new paths,
smallest first, and every finding. `--merge` writes it anew from what the last runs found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
OUT = ROOT / "build" / "fuzz"
# The instrumented modules.
CORE = OUT / "core"
# The modules that read what comes from outside, and the C that the ordinary build made of them.
MODULES = {
    "wire": [],
    "session": ["nghttp2", "crypto"],
    "grpc_text": [],
    "journal": [],
}
GENERATED = ROOT / "build" / "cython-release" / "ext" / "riskd" / "core"
HEADERS = ROOT / "ext" / "riskd" / "core"
SANITIZE = "-fsanitize=address,undefined"
# Lines of the corpus that are kept.
CORPUS_LINES_MAX = 300
# How large an input may become. Of a connection: messages that have memory of their own, and more
# than the first window of a stream.
INPUT_BYTES_MAX = {"wire": 1024, "session": 80_000, "journal": 1024}


class MissingError(Exception):
    """There is nothing to fuzz with; the message says what is missing."""


class BuildError(Exception):
    """What is to be fuzzed cannot be built; the message says what the compiler said."""


def build() -> Path:
    """Return the fuzzer, built from the C of the last build. Raises MissingError, BuildError."""
    if shutil.which("clang") is None:
        raise MissingError("there is no clang: apt-get install clang")
    if os.environ.get("RISKD_DEBUG", "0") not in ("", "0"):
        raise MissingError("a debug build has the sanitizers of another compiler")
    if not (GENERATED / "wire.c").exists():
        raise MissingError(f"there is no {GENERATED.relative_to(ROOT)}: run make")
    CORE.mkdir(parents=True, exist_ok=True)
    include = f"-isystem{sysconfig.get_path('include')}"
    common = ["clang", "-std=c11", "-D_DEFAULT_SOURCE", "-O1", "-g", include, SANITIZE]
    common.append("-fno-sanitize-recover=all")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for module, libraries in MODULES.items():
        source = GENERATED / f"{module}.c"
        target = CORE / f"{module}{suffix}"
        if not source.exists():  # It needs a library that is not there.
            target.unlink(missing_ok=True)
            continue
        flags = ["-w", "-fPIC", "-shared", "-fsanitize=fuzzer-no-link", "-DRISKD_DEBUG=1"]
        flags += [f"-I{HEADERS}", *(f"-l{library}" for library in libraries)]
        _compile(target, source, [*common, *flags])
    fuzzer = OUT / "fuzzer"
    library = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    flags = ["-Wall", "-Wextra", "-fsanitize=fuzzer", f"-L{library}", f"-Wl,-rpath,{library}"]
    _compile(fuzzer, FOLDER / "harness.c", [*common, *flags], [f"-lpython{version}"])
    return fuzzer


def _compile(target: Path, source: Path, command: list[str], last: list[str] | None = None) -> None:
    made_of = [source, *HEADERS.glob("*.h"), Path(__file__)]
    newest = max(path.stat().st_mtime for path in made_of)
    if target.exists() and target.stat().st_mtime >= newest:
        return
    done = subprocess.run(
        [*command, str(source), "-o", str(target), *(last or [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"clang cannot build {source.name}: {done.stderr[-800:]}")


def corpus_file(target: str) -> Path:
    """Return the file of a target's corpus."""
    return FOLDER / "corpus" / f"{target}.txt"


def corpus(target: str) -> list[bytes]:
    """Return the seeds of a target and what was found since."""
    path = corpus_file(target)
    found = [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []
    return [*TARGETS[target][1](), *found]


def write_inputs(target: str) -> Path:
    """Write the corpus to a working directory beside what earlier runs left there."""
    folder = OUT / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(corpus(target)):
        (folder / f"seed-{index:03d}").write_bytes(content)
    return folder


def command(fuzzer: Path, target: str) -> tuple[list[str], dict[str, str]]:
    """Return how a target is run, and its environment."""
    variables = {
        **os.environ,
        "RISKD_FUZZ_PYTHON": sys.executable,
        "RISKD_FUZZ_TARGET": target,
        "RISKD_FUZZ_CORE": str(CORE),
        "PYTHONPATH": str(ROOT),
        # Python frees objects by its own rules, and some never.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    words = [
        str(fuzzer),
        f"-artifact_prefix={OUT}/{target}-",
        f"-max_len={INPUT_BYTES_MAX[target]}",
    ]
    return words, variables


def fuzz(target: str, seconds: int) -> int:
    """Run a target for so long; return the status of libFuzzer, not 0 for a finding."""
    words, variables = command(build(), target)
    folder = write_inputs(target)
    words += [f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=10", str(folder)]
    return subprocess.run(words, env=variables, cwd=ROOT, check=False).returncode


def merge(target: str) -> None:
    """Write the corpus anew: the smallest inputs that together cover what is known."""
    words, variables = command(build(), target)
    folder = write_inputs(target)
    merged = OUT / "merged" / target
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    subprocess.run(
        [*words, "-merge=1", str(merged), str(folder)], env=variables, cwd=ROOT, check=True
    )
    seeds = set(TARGETS[target][1]())
    inputs = {path.read_bytes() for path in merged.iterdir()} - seeds
    kept = sorted(inputs, key=lambda content: (len(content), content))[:CORPUS_LINES_MAX]
    path = corpus_file(target)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{content.hex()}\n" for content in kept if content))


def main() -> int:
    """Fuzz each target, or merge its corpus; the exit status is 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--merge", action="store_true", help="write the corpus anew")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    failed = []
    try:
        for target in arguments.targets or TARGETS:
            if arguments.merge:
                merge(target)
            elif fuzz(target, arguments.seconds) != 0:
                failed.append(target)
    except (MissingError, BuildError) as error:
        print(f"fuzz: not run: {error}", file=sys.stderr)
        return 1
    for target in failed:
        print(f"fuzz: {target}: a finding is in {OUT}/{target}-*", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
