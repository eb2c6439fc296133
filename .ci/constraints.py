"""Resolve all dependencies to their newest allowed versions and pin them in constraints.txt."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Every package of the development environment. Written by `make constraints`.\n"


def requirements(pyproject: Path) -> list[str]:
    """Return what the project needs to build, run and be developed."""
    tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = tables["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [
        *tables["build-system"]["requires"],
        *project.get("dependencies", []),
        *(requirement for extra in extras for requirement in extra),
    ]


def main() -> None:
    pyprojects = [ROOT / "pyproject.toml", ROOT / "clients" / "python" / "pyproject.toml"]
    wanted = [each for path in pyprojects if path.exists() for each in requirements(path)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    report = subprocess.run(
        [*command, "--report=-", *wanted], check=True, stdout=subprocess.PIPE, text=True
    )
    packages = [item["metadata"] for item in json.loads(report.stdout)["install"]]
    pins = sorted(f"{package['name'].lower()}=={package['version']}" for package in packages)
    (ROOT / ".ci" / "constraints.txt").write_text(HEADER + "\n".join(pins) + "\n")


if __name__ == "__main__":
    main()
