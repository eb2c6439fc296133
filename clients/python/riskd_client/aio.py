"""The client for asyncio: the same methods, to be awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import grpc.aio

from riskd_client.catalogue import CatalogueIncompleteError
from riskd_client.errors import Unavailable
from riskd_client.operations import RPCS, Call, Operations, Page, Pages, Rpc, Watch
from riskd_client.session import (
    ChannelOptions,
    Session,
    backoff,
    channel_options,
    check_reach,
    describe,
)

Params = ParamSpec("Params")
Result = TypeVar("Result")


def _call(
    plan: Callable[Concatenate[Operations, Params], Call[Result]],
) -> Callable[Concatenate["AsyncClient", Params], Coroutine[Any, Any, Result]]:
    """Return the method that makes a planned call."""

    async def method(
        client: "AsyncClient", /, *args: Params.args, **kwargs: Params.kwargs
    ) -> Result:
        call = await client._planned(lambda: plan(client._operations, *args, **kwargs))
        return await client._run(call)

    describe(method, plan)
    return method


def _pages(
    plan: Callable[Concatenate[Operations, Params], Pages[Result]],
) -> Callable[Concatenate["AsyncClient", Params], AsyncIterator[Result]]:
    """Return the method that iterates over a planned list, a page at a time."""

    def method(
        client: "AsyncClient", /, *args: Params.args, **kwargs: Params.kwargs
    ) -> AsyncIterator[Result]:
        return client._iterate(plan(client._operations, *args, **kwargs))

    describe(method, plan, AsyncIterator)
    return method


def _watch(
    plan: Callable[Concatenate[Operations, Params], Watch[Result]],
) -> Callable[Concatenate["AsyncClient", Params], AsyncIterator[Result]]:
    """Return the method that iterates over a planned stream, and opens it anew when it breaks."""

    def method(
        client: "AsyncClient", /, *args: Params.args, **kwargs: Params.kwargs
    ) -> AsyncIterator[Result]:
        return client._watched(plan(client._operations, *args, **kwargs))

    describe(method, plan, AsyncIterator)
    return method


class AsyncClient(Session):
    """A connection to riskd for the tasks of one event loop. Make it inside of a coroutine.

    async with AsyncClient("localhost:50051") as client:
        decision = await client.check_order(1, "BTC-PERP", "buy", "0.5", "65000.5")

    Everything else is as in Client. Cancelling a task does not take an order back: it may have
    been decided. Repeat it with its client_order_id, which is then to be given by the caller.
    """

    def __init__(
        self,
        target: str,
        *,
        gateway_id: int = 1,
        actor: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        timeout: float = 5.0,
        options: ChannelOptions = (),
    ) -> None:
        super().__init__(gateway_id, timeout, actor, token)
        check_reach(target, token, credentials)
        self._refreshing = asyncio.Lock()
        settings = channel_options(options)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=settings)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=settings)
        self._methods: dict[Rpc, Callable[..., Any]] = {
            rpc: (self._channel.unary_stream if rpc.is_stream else self._channel.unary_unary)(
                rpc.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=rpc.response.FromString,
            )
            for rpc in RPCS
        }

    async def refresh(self) -> None:
        """Load all instruments and assets anew."""
        async with self._refreshing:
            # Instruments first: the assets listed after them contain those of all of them.
            instruments = [row async for row in self.list_instruments()]
            self.catalogue.load(await self.list_assets(), instruments)

    async def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        try:
            await self.refresh()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _planned(self, plan: Callable[[], Call[Result]]) -> Call[Result]:
        try:
            return plan()
        except CatalogueIncompleteError:
            await self.refresh()
            return plan()

    async def _run(self, call: Call[Result]) -> Result:
        seconds = self._seconds(call)
        try:
            reply = await self._methods[call.rpc](
                call.request, timeout=seconds, metadata=self._metadata
            )
        except grpc.RpcError as failed:
            raise call.failure(failed) from failed
        try:
            return call.read(reply)
        except CatalogueIncompleteError:
            await self.refresh()
            return call.read(reply)

    async def _iterate(self, pages: Pages[Result]) -> AsyncIterator[Result]:
        token = ""
        while True:
            page: Page[Result] = await self._run(pages.call(token))
            for item in page.items:
                yield item
            token = page.next_page_token
            if not token:
                return

    async def _watched(self, watch: Watch[Result]) -> AsyncIterator[Result]:
        after = watch.after_revision
        waits = backoff()
        while True:
            call = watch.call(after)
            stream = self._methods[call.rpc](call.request, metadata=self._metadata)
            try:
                async for reply in stream:
                    item = call.read(reply)
                    after = watch.revision_of(item)
                    waits = backoff()
                    yield item
            except grpc.RpcError as failed:
                error = call.failure(failed)
                if not isinstance(error, Unavailable):
                    raise error from failed
            finally:
                stream.cancel()
            await asyncio.sleep(next(waits))

    check_order = _call(Operations.check_order)
    batch_check_orders = _call(Operations.batch_check_orders)
    check_amendment = _call(Operations.check_amendment)
    report_fill = _call(Operations.report_fill)
    report_bust = _call(Operations.report_bust)
    report_correction = _call(Operations.report_correction)
    report_cancel = _call(Operations.report_cancel)
    report_expire = _call(Operations.report_expire)
    report_venue_reject = _call(Operations.report_venue_reject)
    get_reservation = _call(Operations.get_reservation)
    report_marks = _call(Operations.report_marks)
    report_open_interest = _call(Operations.report_open_interest)
    get_mark = _call(Operations.get_mark)
    create_account = _call(Operations.create_account)
    get_account = _call(Operations.get_account)
    list_accounts = _pages(Operations.list_accounts)
    adjust_collateral = _call(Operations.adjust_collateral)
    transfer_margin = _call(Operations.transfer_margin)
    change_margin_mode = _call(Operations.change_margin_mode)
    set_leverage = _call(Operations.set_leverage)
    change_position_mode = _call(Operations.change_position_mode)
    set_account_owner = _call(Operations.set_account_owner)
    create_firm = _call(Operations.create_firm)
    list_firms = _pages(Operations.list_firms)
    load_position = _call(Operations.load_position)
    set_credit_line = _call(Operations.set_credit_line)
    create_asset = _call(Operations.create_asset)
    list_assets = _call(Operations.list_assets)
    upsert_instrument = _call(Operations.upsert_instrument)
    list_instruments = _pages(Operations.list_instruments)
    upsert_margin_schedule = _call(Operations.upsert_margin_schedule)
    list_margin_schedules = _pages(Operations.list_margin_schedules)
    upsert_option_rule = _call(Operations.upsert_option_rule)
    list_option_rules = _call(Operations.list_option_rules)
    define_collateral = _call(Operations.define_collateral)
    list_collateral = _call(Operations.list_collateral)
    apply_funding = _call(Operations.apply_funding)
    settle_instrument = _call(Operations.settle_instrument)
    simulate_portfolio = _call(Operations.simulate_portfolio)
    set_margin_levels = _call(Operations.set_margin_levels)
    watch_risk_events = _watch(Operations.watch_risk_events)
    margin_summary = _call(Operations.margin_summary)
    position_margins = _call(Operations.position_margins)
    liquidation_price = _call(Operations.liquidation_price)
    max_order_size = _call(Operations.max_order_size)
    greeks = _call(Operations.greeks)
    engage_kill_switch = _call(Operations.engage_kill_switch)
    release_kill_switch = _call(Operations.release_kill_switch)
    change_trading_state = _call(Operations.change_trading_state)
    list_trading_states = _call(Operations.list_trading_states)
    renew_gateway_lease = _call(Operations.renew_gateway_lease)
    list_gateways = _pages(Operations.list_gateways)
    cancel_orders = _call(Operations.cancel_orders)
    set_limit = _call(Operations.set_limit)
    raise_limit = _call(Operations.raise_limit)
    remove_limit = _call(Operations.remove_limit)
    reset_limit_usage = _call(Operations.reset_limit_usage)
    list_limits = _pages(Operations.list_limits)
    list_changes = _pages(Operations.list_changes)
    list_denials = _call(Operations.list_denials)
    explain_decision = _call(Operations.explain_decision)
