"""A client has done what it printed only if it also ended well."""

import sys
from pathlib import Path

import pytest

from tests.interop import __main__ as interop
from tests.interop.server import Door, Service
from tests.interop.toolchains import AbsentError, BuildError

ALL = "".join(f"print('{case}\\tok', flush=True)\n" for case in interop.CASES)
DOOR = Door("native", "127.0.0.1:1")


def results(code: str) -> interop.Results:
    return interop.program([sys.executable, "-c", code])(interop.Run(DOOR, 1, 1))


def test_what_a_program_prints_is_its_result() -> None:
    assert set(results(ALL).items()) == {(case, "ok") for case in (*interop.CASES, "end")}
    found = results("print('unary\\tFAIL\\twhy')\nprint('other\\tok')")
    assert found == {
        **dict.fromkeys(interop.CASES, "status 0: no output"),
        "unary": "why",
        "end": "ok",
    }


def test_a_program_that_dies_after_its_last_case_has_failed() -> None:
    found = results(ALL + "raise SystemExit('died')")
    assert {case: why for case, why in found.items() if why != "ok"} == {"end": "status 1: died"}


def test_a_program_that_does_not_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interop, "TIMEOUT_S", 1)
    found = results(ALL + "import time\ntime.sleep(60)")
    assert {case: why for case, why in found.items() if why != "ok"} == {"end": "no end after 1 s"}


def test_a_tool_that_is_not_there_is_no_failure_and_a_build_that_fails_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> list[str | Path]:
        raise AbsentError("there is no go")

    def broken() -> list[str | Path]:
        raise BuildError("go failed")

    monkeypatch.setattr(interop, "BUILDERS", {"absent": absent, "broken": broken})
    service = Service([DOOR], [], 0)
    rows, missing = interop.run_all(["absent", "broken"], service, 1)
    assert rows == {("broken", "build"): {"end": "go failed"}}
    assert missing == {"absent": "there is no go"}


def test_programs_see_no_setting_of_riskd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RISKD_DURABILITY", "none")
    assert "RISKD_DURABILITY" not in interop.Run(DOOR, 1, 1).environment()
