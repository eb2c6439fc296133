"""Run h2spec against the native door: every test passes, or is in EXCEPTIONS with its reason.

h2spec sends GET requests without a body. riskd answers each at once, with a status and no message,
which is one HEADERS frame: gRPC has only POST. Some tests count on a slower server, or on a body.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.interop.server import Door, serving
from tests.interop.toolchains import AbsentError, BuildError, go_tool
from tests.processes import environment

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"
PATH = "/riskd.v1.OrderRiskService/CheckOrder"
TIMEOUT_S = 300

_NO_BODY = (
    "h2spec waits for a DATA frame; a response may be a HEADERS frame alone (RFC 9113, 8.1), and a "
    "call without a message is answered so (gRPC over HTTP/2, Trailers-Only)"
)
# What h2spec fails in, by section and title, and why that is right.
EXCEPTIONS = {
    ("generic/2", "Sends a WINDOW_UPDATE frame on half-closed (remote) stream"): _NO_BODY,
    ("generic/2", "Sends a PRIORITY frame on half-closed (remote) stream"): _NO_BODY,
    (
        "http2/5.1.2",
        "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    ): (
        "each request of the test is whole and answered at once, so that its stream is closed and "
        "counts no more (RFC 9113, 5.1.2): the limit is never exceeded"
    ),
}

Test = tuple[str, str]


class RunError(Exception):
    """h2spec has no result; the message says why."""


def run(program: Path, door: Door) -> tuple[dict[Test, str], int]:
    """Run all tests, the strict ones too; return what failed and how, and how many passed.

    Raises RunError, TimeoutExpired.
    """
    host, _, port = door.address.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["--strict", "--path", PATH, "--junit-report", str(report)]
        words += ["--tls", "--insecure"] if door.tls else []
        done = subprocess.run(
            [str(program), "--host", host, "--port", port, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=environment(),
        )
        if not report.exists():
            raise RunError(f"no report, status {done.returncode}: {done.stderr or done.stdout}")
        try:
            cases = list(ET.parse(report).iter("testcase"))
        except ET.ParseError as error:
            line = report.read_bytes().splitlines()[error.position[0] - 1]
            raise RunError(f"the report is no XML: {error}: {line!r}") from None
    failed = {}
    passed = 0
    for case in cases:
        fault = case.find("error")
        if fault is None:
            fault = case.find("failure")
        if fault is not None:
            lines = (fault.text or "").split("\n")
            test = (case.get("package", ""), case.get("classname", ""))
            failed[test] = f"wanted {' or '.join(lines[:-1])}; got {lines[-1]}"
        elif case.find("skipped") is None:
            passed += 1
    return failed, passed


def main() -> int:
    """Print what failed; the exit status is 1 if that is not what is excepted."""
    try:
        program = go_tool("h2spec", H2SPEC)
    except (AbsentError, BuildError) as error:
        print(f"h2spec: not run: {error}")
        return 1
    wrong = 0
    with serving() as service:
        # h2spec has no certificate of its own.
        doors = [door for door in service.doors if door.name in ("native", "native-tls")]
        for door in doors:
            name = "TLS" if door.tls else "plain text"
            try:
                failed, passed = run(program, door)
            except (RunError, subprocess.TimeoutExpired) as error:
                print(f"{name}: FAILED: {error}")
                wrong += 1
                continue
            for test, how in failed.items():
                excepted = EXCEPTIONS.get(test)
                print(f"{name}: {' '.join(test)}: {excepted or f'FAILED: {how}'}")
            unexplained = failed.keys() - EXCEPTIONS.keys()
            stale = EXCEPTIONS.keys() - failed.keys()
            for test in stale:
                print(f"{name}: {' '.join(test)}: passes, and is no exception any more")
            print(
                f"{name}: {passed} passed, {len(failed) - len(unexplained)} explained, "
                f"{len(unexplained)} failed"
            )
            wrong += len(unexplained) + len(stale) + (passed == 0)
    if not doors:
        print(f"h2spec: not run: {'; '.join(service.notes)}")
    return 1 if wrong or not doors else 0


if __name__ == "__main__":
    sys.exit(main())
