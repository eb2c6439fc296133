"""Run other people's clients against both doors: what each must do is in README.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.interop.server import Door, Service, serving
from tests.interop.toolchains import (
    BUILDERS,
    HEALTH_PROTOS,
    ROOT,
    AbsentError,
    BuildError,
    go_program,
)
from tests.processes import environment

CASES = (
    *("unary", "repeat", "metadata", "batch", "details", "large", "unimplemented"),
    *("deadline", "cancel", "stream", "health", "concurrent"),
)
# Beside the cases: that a client can be built, and that it ends by itself with status 0.
END = "end"
IDS_A_RUN = 1_000_000
TIMEOUT_S = 300
SERVICE = "riskd.v1.OrderRiskService"
# A service that nobody has, and what a status message must carry as it is.
NOBODY = "\tno body\r\n\u263a \U0001f608 %41\n"

# What became of a case: "ok", or why it failed.
Results = dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """A door, and what is this run's own."""

    door: Door
    first_id: int
    calls: int

    def environment(self) -> dict[str, str]:
        """Return the variables of README.md, over those of this process."""
        found = {
            **environment(),
            "INTEROP_ADDRESS": self.door.address,
            "INTEROP_FIRST_ID": str(self.first_id),
            "INTEROP_CALLS": str(self.calls),
            "INTEROP_PROTOS": HEALTH_PROTOS,
        }
        for name, path in self.door.tls.items():
            found[f"INTEROP_{name.upper()}"] = str(path)
        return found


Client = Callable[[Run], Results]


def program(command: Sequence[str | Path]) -> Client:
    """Return a client that is a program which prints a line a case."""

    def run(run: Run) -> Results:
        try:
            done = subprocess.run(
                [*map(str, command)],
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
                env=run.environment(),
            )
        except subprocess.TimeoutExpired as error:
            # Bytes, although text was asked for (python/cpython#87597).
            printed = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
            why = f"no end after {TIMEOUT_S} s"
            return {**parsed(printed, why), END: why}
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        why = f"status {done.returncode}: {last}"
        return {**parsed(done.stdout, why), END: "ok" if done.returncode == 0 else why}

    return run


def parsed(printed: str, otherwise: str) -> Results:
    """Return what a program printed of each case, and otherwise of what it did not name."""
    results = dict.fromkeys(CASES, otherwise)
    for line in printed.splitlines():
        name, _, rest = line.partition("\t")
        if name in results:
            results[name] = rest.removeprefix("FAIL").strip() or "FAIL"
    return results


# --- grpcurl and ghz ---------------------------------------------------------------------------


def order(client_order_id: int | str) -> dict[str, int | str]:
    """Return the order of README.md in the JSON of protobuf."""
    return {
        "account_id": 7,
        "instrument_id": 1,
        "client_order_id": client_order_id,
        "side": "SIDE_BUY",
        "order_type": "ORDER_TYPE_LIMIT",
        "price_ticks": 120_000,
        "quantity_lots": 1,
        "gateway_id": 3,
    }


class Grpcurl:
    """The cases that grpcurl can say."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        self._run = run
        self._ids = iter(range(run.first_id, run.first_id + IDS_A_RUN))

    def results(self) -> Results:
        """Run them."""
        cases: dict[str, Callable[[], None]] = {
            "unary": self._unary,
            "repeat": self._repeat,
            "metadata": self._metadata,
            "batch": self._batch,
            "details": self._details,
            "stream": self._stream,
            "health": self._health,
        }
        results = {}
        for name, case in cases.items():
            try:
                case()
            except (AssertionError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                results[name] = f"{type(error).__name__}: {error}"
            else:
                results[name] = "ok"
        return results

    def _call(self, method: str, messages: str, *flags: str) -> tuple[int, str, str]:
        tls = self._run.door.tls
        security = ["-cacert", str(tls["ca"]), "-authority", "localhost"] if tls else ["-plaintext"]
        if "certificate" in tls:
            security += ["-cert", str(tls["certificate"]), "-key", str(tls["key"])]
        protos = [word for folder in HEALTH_PROTOS.split(":") for word in ("-import-path", folder)]
        files = ["riskd/v1/order_risk_service.proto", "grpc/health/v1/health.proto"]
        files.append("google/rpc/error_details.proto")
        protos += [word for file in files for word in ("-proto", file)]
        done = subprocess.run(
            [
                *(str(self._path), *security, *protos, *flags),
                *("-format-error", "-d", "@", self._run.door.address, method),
            ],
            input=messages,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
        return done.returncode, done.stdout, done.stderr

    def _check(self, client_order_id: int, *flags: str) -> dict[str, object]:
        message = json.dumps(order(client_order_id))
        status, out, error = self._call(f"{SERVICE}/CheckOrder", message, *flags)
        assert status == 0, error
        reply: dict[str, object] = json.loads(out)
        assert reply["decision"] == "DECISION_ACCEPTED", reply
        return reply

    def _unary(self) -> None:
        self._check(next(self._ids))

    def _repeat(self) -> None:
        identity = next(self._ids)
        assert self._check(identity) == self._check(identity)

    def _metadata(self) -> None:
        identity = next(self._ids)
        headers = ("-H", "x-text: interop", "-H", "x-raw-bin: AP+A")
        assert self._check(identity) == self._check(identity, *headers)

    def _batch(self) -> None:
        message = json.dumps({"orders": [order(next(self._ids)) for _ in range(64)]})
        status, out, error = self._call(f"{SERVICE}/BatchCheckOrders", message)
        assert status == 0, error
        decisions = [each["decision"] for each in json.loads(out)["decisions"]]
        assert decisions == ["DECISION_ACCEPTED"] * 64, decisions

    def _details(self) -> None:
        _, _, error = self._call(f"{SERVICE}/BatchCheckOrders", "{}")
        found = json.loads(error)
        assert found["code"] == 3, found
        (detail,) = found["details"]
        assert "REQUEST_MALFORMED" in json.dumps(detail), detail

    def _stream(self) -> None:
        messages = "\n".join(json.dumps({"order": order(next(self._ids))}) for _ in range(1000))
        status, out, error = self._call(f"{SERVICE}/StreamOrders", messages)
        assert status == 0, error
        reservations = [int(each["order"]["reservationId"]) for each in _objects(out)]
        assert len(reservations) == 1000
        assert reservations == sorted(set(reservations))

    def _health(self) -> None:
        for service in ("", SERVICE):
            message = json.dumps({"service": service})
            status, out, error = self._call("grpc.health.v1.Health/Check", message)
            assert status == 0, error
            assert json.loads(out)["status"] == "SERVING", out
        message = json.dumps({"service": NOBODY})
        _, _, error = self._call("grpc.health.v1.Health/Check", message)
        found = json.loads(error)
        assert found["code"] == 5, error
        assert found["message"] == f"service {NOBODY} is unknown", error


def _objects(text: str) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the JSON objects of a text, one after the other."""
    decoder = json.JSONDecoder()
    at = 0
    while (at := len(text) - len(text[at:].lstrip())) < len(text):
        found, at = decoder.raw_decode(text, at)
        yield found


def ghz(path: Path, run: Run) -> Results:
    """Run ghz's one case: calls at concurrency."""
    # ghz counts its requests from 0, and an id must not be 0.
    identity = f"{run.first_id}{{{{.RequestNumber}}}}1"
    tls = run.door.tls
    security = ["--cacert", str(tls["ca"]), "--cname", "localhost"] if tls else ["--insecure"]
    if "certificate" in tls:
        security += ["--cert", str(tls["certificate"]), "--key", str(tls["key"])]
    done = subprocess.run(
        [
            *(str(path), *security, "--format", "json", "--timeout", "60s"),
            *("--concurrency", "64", "--total", str(run.calls)),
            *("--import-paths", str(ROOT / "proto")),
            *("--proto", str(ROOT / "proto/riskd/v1/order_risk_service.proto")),
            *("--call", f"{SERVICE}/CheckOrder", "--data", json.dumps(order(identity))),
            run.door.address,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment(),
    )
    if done.returncode != 0:
        return {"concurrent": done.stderr.strip() or done.stdout.strip()}
    found = json.loads(done.stdout)["statusCodeDistribution"]
    return {"concurrent": "ok" if found == {"OK": run.calls} else f"statuses {found}"}


# --- all of them -------------------------------------------------------------------------------


def _make_program(build: Callable[[], list[str | Path]]) -> Client:
    return program(build())


def clients() -> dict[str, Callable[[], Client]]:
    """Return what makes each client, building it; it raises AbsentError, BuildError."""
    made: dict[str, Callable[[], Client]] = {
        name: partial(_make_program, build) for name, build in BUILDERS.items()
    }

    def make_grpcurl() -> Client:
        path = go_program("github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3")
        return lambda run: Grpcurl(path, run).results()

    def make_ghz() -> Client:
        path = go_program("github.com/bojand/ghz/cmd/ghz@v0.120.0")
        return lambda run: ghz(path, run)

    return {**made, "grpcurl": make_grpcurl, "ghz": make_ghz}


def table(rows: dict[tuple[str, str], Results]) -> str:
    """Return a line a client and door: ok, FAIL, or - where the client cannot say the case."""
    width = max(len(f"{client} {door}") for client, door in rows)
    columns = [*CASES, END]
    lines = [" ".join([" " * width, *columns])]
    for (client, door), results in rows.items():
        cells = [
            {"ok": "ok", "": "-"}.get(results.get(case, ""), "FAIL").ljust(len(case))
            for case in columns
        ]
        lines.append(" ".join([f"{client} {door}".ljust(width), *cells]))
    return "\n".join(lines)


def run_all(
    names: Sequence[str], service: Service, calls: int
) -> tuple[dict[tuple[str, str], Results], dict[str, str]]:
    """Run the clients against every door; return the results, and who is absent and why.

    The one result of a client that cannot be built has `build` for a door.
    """
    rows: dict[tuple[str, str], Results] = {}
    absent: dict[str, str] = {}
    makers = clients()
    first_id = IDS_A_RUN
    for name in names:
        print(f"{name}: building", flush=True)
        try:
            client = makers[name]()
        except AbsentError as error:
            absent[name] = str(error)
            continue
        except BuildError as error:
            rows[name, "build"] = {END: str(error)}
            print(f"{name} build: {error}", flush=True)
            continue
        for door in service.doors:
            try:
                results = client(Run(door, first_id, calls))
            except (ValueError, KeyError, subprocess.TimeoutExpired) as error:
                results = {END: f"{type(error).__name__}: {error}"}
            first_id += IDS_A_RUN
            rows[name, door.name] = results
            for case, result in results.items():
                print(f"{name} {door.name} {case}: {result}", flush=True)
    return rows, absent


def main() -> int:
    """Build, run, print the table; the exit status is 1 if one failed, or a named one is absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="client", help=", ".join(clients()))
    parser.add_argument("--calls", type=int, default=10_000, help="of the case concurrent")
    arguments = parser.parse_args()
    unknown = set(arguments.clients) - set(clients())
    if unknown:
        parser.error(f"no client {', '.join(sorted(unknown))}: there are {', '.join(clients())}")
    with serving() as service:
        rows, absent = run_all(arguments.clients or list(clients()), service, arguments.calls)
    if rows:
        print(table(rows))
    for name, why in absent.items():
        print(f"not run: {name}: {why}")
    for why in service.notes:
        print(f"note: {why}")
    failed = any(result != "ok" for results in rows.values() for result in results.values())
    return 1 if failed or not rows or (absent and arguments.clients) else 0


if __name__ == "__main__":
    sys.exit(main())
