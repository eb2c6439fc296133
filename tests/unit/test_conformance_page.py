"""docs/conformance.md says what a run says now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT.parent / "shared" / "vectors"


def test_the_conformance_page_is_current() -> None:
    if not (COLLECTION / "margin.jsonl").exists():
        pytest.skip(f"the collection of vectors is not beside the repository, in {COLLECTION}")
    run = subprocess.run(
        [sys.executable, ".ci/conformance.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"make conformance writes it anew\n{run.stderr}"
