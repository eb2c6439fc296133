"""The corpus holds in every build; where clang is there, fuzzing finds nothing in seconds."""

import importlib.util
import subprocess

import pytest

from tests.fuzz.__main__ import CORE, ROOT, MissingError, build, command, corpus, write_inputs
from tests.fuzz.targets import TARGETS

SECONDS = 2


def skip_what_is_not_built(target: str) -> None:
    if target == "session" and importlib.util.find_spec("riskd.core.session") is None:
        pytest.skip("riskd.core.session is not built: it needs libnghttp2-dev")


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_holds(target: str) -> None:
    skip_what_is_not_built(target)
    run, _ = TARGETS[target]
    inputs = corpus(target)
    assert inputs
    for content in inputs:
        run(content)


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(target: str) -> None:
    skip_what_is_not_built(target)
    try:
        words, variables = command(build(), target)
    except MissingError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [*words, f"-max_total_time={SECONDS}", str(write_inputs(target))],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
    # The harness, and each module that was built for it.
    instrumented = 1 + len(list(CORE.glob("*.so")))
    assert f"INFO: Loaded {instrumented} modules " in done.stderr
