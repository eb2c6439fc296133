"""Faults of the way and the service's errors, against a scripted gRPC server on loopback."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import (  # type: ignore[import-untyped, unused-ignore]
    error_details_pb2,
    status_pb2,
)

from riskd_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MarginLevel,
    NotFound,
    OutcomeUnknown,
    ReservationRef,
    RiskdError,
    Unavailable,
)
from riskd_client.v1 import account_service_pb2 as account_pb
from riskd_client.v1 import instrument_service_pb2 as instrument_pb
from riskd_client.v1 import margin_service_pb2 as margin_pb
from riskd_client.v1 import order_risk_service_pb2 as order_pb
from riskd_client.v1 import types_pb2 as types_pb

Script = Callable[[bytes, grpc.ServicerContext], Message]

SYMBOLS = [f"C{number:04}-PERP" for number in range(5)]


class Scripted(grpc.GenericRpcHandler):
    """Answers methods by name with functions, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self.scripts: dict[str, Script] = {
            "ListAssets": self.list_assets,
            "ListInstruments": self.list_instruments,
        }
        self.streams: dict[str, Callable[[bytes, grpc.ServicerContext], Iterator[Message]]] = {}
        # Released at the end of a test, so that no call outlives it.
        self.ended = threading.Event()

    def service(
        self, details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        name = details.method.rsplit("/", 1)[1]

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            self.requests.append((name, request))
            for message in self.streams[name](request, context):
                yield message.SerializeToString()

        if name in self.streams:
            return grpc.unary_stream_rpc_method_handler(stream)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.append((name, request))
            return self.scripts[name](request, context).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer) if name in self.scripts else None

    def count(self, name: str) -> int:
        return sum(1 for method, _ in self.requests if method == name)

    def list_assets(self, request: bytes, context: grpc.ServicerContext) -> Message:
        assets = [instrument_pb.Asset(asset_id=1, symbol="USDT", scale=2)]
        return instrument_pb.ListAssetsResponse(assets=assets)

    def list_instruments(self, request: bytes, context: grpc.ServicerContext) -> Message:
        """Give two on a page, whatever size is asked for."""
        token = instrument_pb.ListInstrumentsRequest.FromString(request).page_token
        start = int(token or 0)
        rows = [
            instrument_pb.Instrument(
                instrument_id=start + offset + 1,
                symbol=symbol,
                kind=instrument_pb.INSTRUMENT_KIND_LINEAR_PERPETUAL,
                settlement_asset="USDT",
                tick_size="0.5",
                lot_size="1",
                mark_units_per_tick=1,
            )
            for offset, symbol in enumerate(SYMBOLS[start : start + 2])
        ]
        following = str(start + 2) if start + 2 < len(SYMBOLS) else ""
        return instrument_pb.ListInstrumentsResponse(instruments=rows, next_page_token=following)

    def hang(self, request: bytes, context: grpc.ServicerContext) -> Message:
        self.ended.wait()
        return order_pb.CheckOrderResponse()

    def accept(self, request: bytes, context: grpc.ServicerContext) -> Message:
        return order_pb.CheckOrderResponse(
            decision=types_pb.DECISION_ACCEPTED,
            reason=types_pb.REASON_CODE_NONE,
            reservation_id=1,
            available_minor=12345,
        )


def fail(code: grpc.StatusCode, message: str = "no", reason: str = "") -> Script:
    """Return a script that fails, with an ErrorInfo if there is a reason."""

    def script(request: bytes, context: grpc.ServicerContext) -> Message:
        if reason:
            detail = any_pb2.Any()
            detail.Pack(
                error_details_pb2.ErrorInfo(
                    reason=reason, domain="riskd", metadata={"available": "3900.00"}
                )
            )
            status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
        context.abort(code, message)

    return script


@pytest.fixture
def server() -> Iterator[tuple[Scripted, str]]:
    scripted = Scripted()
    threads = ThreadPoolExecutor(8)
    running = grpc.server(threads, options=(("grpc.so_reuseport", 0),))
    running.add_generic_rpc_handlers((scripted,))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield scripted, f"127.0.0.1:{port}"
    scripted.ended.set()
    running.stop(None).wait()
    threads.shutdown()


Server = tuple[Scripted, str]


def raised(target: str, act: Callable[[Client], object], **settings: Any) -> RiskdError:
    """Return what both clients raise for the same act, after asserting that it is the same."""
    with pytest.raises(RiskdError) as caught, Client(target, **settings) as client:
        act(client)

    async def again() -> RiskdError:
        with pytest.raises(RiskdError) as caught:
            async with AsyncClient(target, **settings) as client:
                await act(client)  # type: ignore[arg-type, misc]
        return caught.value

    error = caught.value
    other = asyncio.run(again())
    assert type(other) is type(error)
    assert (other.code, other.reason, other.metadata) == (error.code, error.reason, error.metadata)
    return error


def test_all_pages_of_the_catalogue_are_loaded_on_entry(server: Server) -> None:
    scripted, target = server
    with Client(target) as client:
        assert client.catalogue.symbols == tuple(SYMBOLS)
    assert scripted.count("ListInstruments") == 3

    async def load() -> tuple[str, ...]:
        async with AsyncClient(target) as client:
            return client.catalogue.symbols

    assert asyncio.run(load()) == tuple(SYMBOLS)


def test_without_with_the_catalogue_is_loaded_by_the_first_call_that_needs_it(
    server: Server,
) -> None:
    scripted, target = server
    scripted.scripts["CheckOrder"] = scripted.accept
    client = Client(target)
    assert scripted.requests == []
    decision = client.check_order(1, SYMBOLS[4], "buy", 1, "10.5")
    client.close()
    assert (decision.accepted, decision.available) == (True, Decimal("123.45"))
    assert scripted.count("CheckOrder") == 1


def test_one_client_serves_many_threads(server: Server) -> None:
    scripted, target = server
    scripted.scripts["CheckOrder"] = scripted.accept
    with Client(target) as client, ThreadPoolExecutor(8) as threads:
        decisions = list(
            threads.map(lambda _: client.check_order(1, SYMBOLS[0], "buy", 1, 1), range(200))
        )
    assert len({decision.client_order_id for decision in decisions}) == 200


def test_an_error_carries_reason_metadata_and_message(server: Server) -> None:
    scripted, target = server
    scripted.scripts["AdjustCollateral"] = fail(
        grpc.StatusCode.FAILED_PRECONDITION,
        "amount 4120.00 exceeds available 3900.00 (USDT)",
        "EXCEEDS_AVAILABLE",
    )
    error = raised(target, lambda client: client.adjust_collateral(1, "USDT", "-4120"))
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "EXCEEDS_AVAILABLE"
    assert error.metadata == {"available": "3900.00"}
    assert error.message == "amount 4120.00 exceeds available 3900.00 (USDT)"
    assert str(error).startswith("AdjustCollateral: FAILED_PRECONDITION (EXCEEDS_AVAILABLE): ")


def test_details_that_cannot_be_read_leave_the_status(server: Server) -> None:
    scripted, target = server

    def script(request: bytes, context: grpc.ServicerContext) -> Message:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such account")

    scripted.scripts["GetAccount"] = script
    error = raised(target, lambda client: client.get_account(1))
    assert isinstance(error, NotFound)
    assert (error.reason, error.message) == ("", "no such account")


def test_an_order_that_times_out_has_an_unknown_outcome_and_names_its_id(server: Server) -> None:
    scripted, target = server
    scripted.scripts["CheckOrder"] = scripted.hang
    error = raised(
        target,
        lambda client: client.check_order(
            1, SYMBOLS[0], "buy", 1, 1, client_order_id=42, timeout=0.2
        ),
    )
    assert isinstance(error, OutcomeUnknown)
    assert error.client_order_id == 42
    assert "get_reservation(client_order_id=42)" in str(error)
    assert "repeat the same order with client_order_id=42" in str(error)


def test_an_execution_that_times_out_names_its_id(server: Server) -> None:
    scripted, target = server
    scripted.scripts["ReportExecution"] = scripted.hang
    order = ReservationRef(SYMBOLS[0], 1)
    error = raised(target, lambda client: client.report_cancel(order, execution_id=7, timeout=0.2))
    assert isinstance(error, OutcomeUnknown)
    assert (error.execution_id, error.client_order_id) == (7, None)


def test_a_read_that_times_out_leaves_nothing_unknown(server: Server) -> None:
    scripted, target = server
    scripted.scripts["GetAccount"] = scripted.hang
    error = raised(target, lambda client: client.get_account(1, timeout=0.2))
    assert isinstance(error, DeadlineExceeded)


def test_the_deadline_of_the_client_holds_for_every_call(server: Server) -> None:
    scripted, target = server
    scripted.scripts["ListAssets"] = scripted.hang
    error = raised(target, lambda client: None, timeout=0.2)
    assert isinstance(error, DeadlineExceeded)


def test_an_order_is_repeated_byte_for_byte_while_the_service_is_unavailable(
    server: Server,
) -> None:
    scripted, target = server

    def recover(request: bytes, context: grpc.ServicerContext) -> Message:
        if scripted.count("CheckOrder") < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return scripted.accept(request, context)

    scripted.scripts["CheckOrder"] = recover
    with Client(target) as client:
        assert client.check_order(1, SYMBOLS[0], "buy", 1, 1).accepted
    assert scripted.count("CheckOrder") == 3
    assert len({request for name, request in scripted.requests if name == "CheckOrder"}) == 1


def test_an_order_that_no_attempt_got_an_answer_to_has_an_unknown_outcome(server: Server) -> None:
    scripted, target = server
    scripted.scripts["CheckOrder"] = fail(grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING")
    error = raised(target, lambda client: client.check_order(1, SYMBOLS[0], "buy", 1, 1))
    assert isinstance(error, OutcomeUnknown)
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.client_order_id


def test_a_deposit_is_never_repeated_by_the_channel(server: Server) -> None:
    scripted, target = server
    scripted.scripts["AdjustCollateral"] = fail(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(OutcomeUnknown, match="read the state before"), Client(target) as client:
        client.adjust_collateral(1, "USDT", 1)
    assert scripted.count("AdjustCollateral") == 1


def test_a_deposit_that_the_service_refuses_with_a_reason_was_not_made(server: Server) -> None:
    scripted, target = server
    scripted.scripts["AdjustCollateral"] = fail(grpc.StatusCode.UNAVAILABLE, "later", "DRAINING")
    error = raised(target, lambda client: client.adjust_collateral(1, "USDT", 1))
    assert isinstance(error, Unavailable)


def test_a_service_that_fails_inside_may_have_made_the_change(server: Server) -> None:
    scripted, target = server
    scripted.scripts["AdjustCollateral"] = fail(grpc.StatusCode.INTERNAL, "bug", "INTERNAL_ERROR")
    error = raised(target, lambda client: client.adjust_collateral(1, "USDT", 1))
    assert isinstance(error, OutcomeUnknown)
    assert error.reason == "INTERNAL_ERROR"


def test_every_call_names_its_actor(server: Server) -> None:
    scripted, target = server
    seen: list[Any] = []

    def get_account(request: bytes, context: grpc.ServicerContext) -> Message:
        seen.append(dict(context.invocation_metadata()).get("riskd-actor"))
        return account_pb.GetAccountResponse()

    scripted.scripts["GetAccount"] = get_account
    with Client(target, actor="alice of risk") as client:
        client.get_account(1)
    with Client(target) as client:
        client.get_account(1)

    async def again() -> None:
        async with AsyncClient(target, actor="bob") as client:
            await client.get_account(1)

    asyncio.run(again())
    assert seen == ["alice of risk", None, "bob"]


def test_nobody_at_the_address_is_unavailable() -> None:
    # Port 1 is reserved (tcpmux) and not listened to.
    error = raised("127.0.0.1:1", lambda client: None)
    assert isinstance(error, Unavailable)


def test_a_list_asks_for_the_next_page_only_when_it_is_needed(server: Server) -> None:
    scripted, target = server

    def page(request: bytes, context: grpc.ServicerContext) -> Message:
        token = account_pb.ListAccountsRequest.FromString(request).page_token
        rows = [account_pb.Account(account_id=int(token or 1), default_leverage="20", cash="1")]
        following = {"": "2", "2": "3", "3": ""}[token]
        return account_pb.ListAccountsResponse(accounts=rows, next_page_token=following)

    scripted.scripts["ListAccounts"] = page
    with Client(target) as client:
        rows = client.list_accounts()
        assert next(rows).account_id == 1
        assert scripted.count("ListAccounts") == 1
        assert [row.account_id for row in rows] == [2, 3]

    async def all_ids() -> list[int]:
        async with AsyncClient(target) as client:
            return [row.account_id async for row in client.list_accounts()]

    assert asyncio.run(all_ids()) == [1, 2, 3]


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_deadline_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        Client("127.0.0.1:1", timeout=timeout)


def risk_events(server: Server) -> list[int]:
    """Let a stream break after each message, and return where each call asked to go on."""
    scripted, _ = server
    asked: list[int] = []

    def events(request: bytes, context: grpc.ServicerContext) -> Iterator[Message]:
        after = margin_pb.WatchRiskEventsRequest.FromString(request).after_revision
        asked.append(after)
        if after >= 20:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "that is enough")
        yield margin_pb.WatchRiskEventsResponse(
            events=[
                margin_pb.RiskEvent(
                    revision=after + 7, level_after=margin_pb.MARGIN_LEVEL_SEARCH, equity="1.5"
                )
            ],
            revision=after + 10,
        )
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    scripted.streams["WatchRiskEvents"] = events
    return asked


def test_a_watch_goes_on_where_it_was_when_the_stream_breaks(server: Server) -> None:
    asked = risk_events(server)
    with Client(server[1]) as client:
        watch = client.watch_risk_events(after_revision=1)
        assert [next(watch).revision for _ in range(2)] == [11, 21]
        with pytest.raises(InvalidArgument):
            next(watch)
    assert asked == [1, 11, 21]


def test_an_awaited_watch_goes_on_as_well(server: Server) -> None:
    asked = risk_events(server)

    async def scenario() -> None:
        async with AsyncClient(server[1]) as client:
            watch = client.watch_risk_events(7, after_revision=1)
            for revision in (11, 21):
                told = await anext(watch)
                assert told.revision == revision
                assert told.events[0].level_after is MarginLevel.SEARCH
                assert told.events[0].equity == Decimal("1.5")
            with pytest.raises(InvalidArgument):
                await anext(watch)

    asyncio.run(scenario())
    assert asked == [1, 11, 21]
