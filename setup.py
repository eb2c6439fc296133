"""Build the compiled core from ext/ and the protobuf code from proto/.

Everything that does not depend on the machine or the environment is in pyproject.toml.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CORE = Path("ext/riskd/core")
# 1: every check of our own, with ASan and UBSan; thread: with ThreadSanitizer.
SANITIZE = {
    "0": [],
    "1": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}[os.environ.get("RISKD_DEBUG") or "0"]
DEBUG = bool(SANITIZE)
WERROR = os.environ.get("RISKD_WERROR", "") not in ("", "0")

# No -march=native: a wheel runs on other machines. No -ffast-math and no contraction to fused
# multiply-adds: a double has the same bits on every machine and at every optimisation level.
FLAGS = [
    # The warnings are for our code: those in CPython's own headers are CPython's.
    f"-isystem{sysconfig.get_path('include')}",
    "-std=c11",
    "-D_DEFAULT_SOURCE",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
]
# CPython's own flags contain -fwrapv, which would hide signed overflow from UBSan.
FLAGS += ["-O1", "-g", "-DRISKD_DEBUG=1", "-fno-wrapv", *SANITIZE] if DEBUG else ["-O3"]
FLAGS += ["-Werror"] if WERROR else []


def takes(flag: str) -> bool:
    """Return whether the C compiler, for the machine that it compiles for, knows a flag."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, "-Werror", flag, "-x", "c", "-E", os.devnull, "-o", os.devnull]
    try:
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


# GCC for x86 moves 128-bit integers through vector registers, also where their halves were just
# stored one by one: then the load waits for both stores.
FLAGS += [flag for flag in ["-mno-stv"] if takes(flag)]

# What pkg-config calls them, and their libraries.
SYSTEM_PACKAGES = {
    "session": {"libnghttp2": ["nghttp2"], "openssl": ["crypto"]},
    "listener": {"libnghttp2": ["nghttp2"], "openssl": ["ssl", "crypto"]},
    "tls": {"openssl": ["ssl", "crypto"]},
}

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
}


def remember_flags() -> Path:
    """Return a file that is newer than every object compiled with other flags."""
    path = Path("build/flags.txt")
    text = " ".join(FLAGS)
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path


def libraries_of(module: str) -> list[str] | None:
    """Return the system libraries of a module of the core; None if one is not there.

    Without them everything else is built, and `riskd serve` says that there is no native door.
    """
    packages = SYSTEM_PACKAGES.get(module, {})
    command = ["pkg-config", "--exists", *packages]
    try:
        found = not packages or subprocess.run(command, check=False).returncode == 0
    except FileNotFoundError:
        found = False
    return [library for each in packages.values() for library in each] if found else None


def core_extensions() -> list[Extension]:
    """Return one extension riskd.core.<module> for each .pyx file of the core."""
    flags = remember_flags()
    libraries = {path: libraries_of(path.stem) for path in sorted(CORE.glob("*.pyx"))}
    headers = [str(path) for path in sorted(CORE.glob("*.h"))]
    extensions = [
        Extension(
            f"riskd.core.{path.stem}",
            [str(path)],
            include_dirs=[str(CORE)],
            depends=[*headers, str(flags)],
            extra_compile_args=FLAGS,
            extra_link_args=SANITIZE,
            libraries=each,
        )
        for path, each in libraries.items()
        if each is not None
    ]
    return cythonize(
        extensions,
        include_path=["ext"],
        build_dir=f"build/cython-{'debug' if DEBUG else 'release'}",
        compiler_directives=DIRECTIVES,
        nthreads=os.cpu_count() or 1,
    )


class BuildExt(build_ext):
    """build_ext that compiles once for an editable install and names all that it reads."""

    def run(self) -> None:
        if self.editable_mode:
            # setuptools would compile to a temporary directory, one module at a time and all of
            # them again at the next build in place.
            self.spawn([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"])
        else:
            super().run()

    def get_source_files(self) -> list[str]:
        patterns = ("ext/**/*.p*", "ext/**/*.h", "proto/**/*.*", ".ci/generate_proto.py")
        return [str(path) for pattern in patterns for path in Path().glob(pattern)]


if __name__ == "__main__":
    # Before setup(), which looks for packages and modules in all its commands.
    subprocess.run([sys.executable, ".ci/generate_proto.py"], check=True)
    setup(
        packages=[*find_packages(include=["riskd", "riskd.*"]), "riskd.core"],
        package_dir={"riskd.core": str(CORE)},
        ext_modules=core_extensions(),
        cmdclass={"build_ext": BuildExt},
        options={"build_ext": {"parallel": os.cpu_count() or 1}},
    )
