"""What every servicer stands on: engine, catalogue, clock, and the lookups that refuse."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import grpc

from riskd.catalogue import Asset, Catalogue, Instrument
from riskd.services.commits import Commits
from riskd.services.errors import FIELD_INVALID, RefusalError
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import AccountRow, Engine

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000

_changes = logging.getLogger("riskd.changes")


class Backend:
    """The engine as the servicers see it.

    change_lock is held over changes that read before they write, so that two of them do not mix.
    The engine has its own lock for each call, and the hot methods never take this one.
    """

    def __init__(self, engine: "Engine", clock: Callable[[], int], room_wait_s: float) -> None:
        self.engine = engine
        self.commits = Commits(engine, room_wait_s)
        self.catalogue = Catalogue(engine)
        self.clock = clock
        self.change_lock = threading.Lock()

    def asset(self, symbol: str, field: str) -> Asset:
        """Return the asset of a symbol, or refuse."""
        asset = self.catalogue.asset_by_symbol(symbol)
        if asset is None:
            known = ", ".join(row.symbol for row in self.engine.assets()) or "none"
            raise RefusalError(
                types_pb2.REASON_CODE_ASSET_UNKNOWN,
                f"{field} {symbol[:32]!r} is unknown: the assets are {known}",
                field=field,
                value=symbol[:32],
            )
        return asset

    def asset_of(self, asset_id: int) -> Asset:
        """Return the asset of an id that the engine gave."""
        asset = self.catalogue.asset(asset_id)
        assert asset is not None, f"the engine names asset {asset_id} and does not have it"
        return asset

    def account(self, account_id: int) -> "AccountRow":
        """Return an account, or refuse."""
        account = self.engine.account(account_id)
        if account is None:
            raise RefusalError(
                types_pb2.REASON_CODE_ACCOUNT_UNKNOWN,
                f"account_id {account_id} is unknown",
                field="account_id",
                value=account_id,
            )
        return account

    def instrument(self, instrument_id: int) -> Instrument:
        """Return an instrument, or refuse."""
        instrument = self.catalogue.instrument(instrument_id)
        if instrument is None:
            raise RefusalError(
                types_pb2.REASON_CODE_INSTRUMENT_UNKNOWN,
                f"instrument_id {instrument_id} is unknown",
                field="instrument_id",
                value=instrument_id,
            )
        return instrument

    def figures_known(self, account_id: int) -> bool:
        """Return whether every mark that the account's figures need was reported."""
        summary = self.engine.summary(account_id)
        return summary is not None and summary.known

    def log_change(
        self, context: grpc.ServicerContext, method: str, revision: int, **fields: object
    ) -> None:
        """Write one line for a change that was made."""
        line = {"method": method, "peer": context.peer(), "revision": revision, **fields}
        _changes.info("changed", extra={"fields": line})


def require_one_way(position_side: int) -> None:
    """Refuse the position sides of hedge mode, which the engine does not have yet."""
    if position_side not in (types_pb2.POSITION_SIDE_UNSPECIFIED, types_pb2.POSITION_SIDE_NET):
        name = enum_name(types_pb2.PositionSide.items(), position_side, "POSITION_SIDE_")
        raise RefusalError(
            types_pb2.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED,
            f"position_side is {name}: must be NET or not set",
            field="position_side",
            value=position_side,
            bound="NET or not set",
        )


def page_bounds(page_size: int, page_token: str) -> tuple[int, int]:
    """Return (id after which the page starts, most entries of the page).

    A token is the last id of the page before, in decimal.
    """
    if page_size > PAGE_SIZE_MAX:
        raise RefusalError(
            FIELD_INVALID,
            f"page_size is {page_size}: must be 0 to {PAGE_SIZE_MAX}",
            field="page_size",
            value=page_size,
            bound=PAGE_SIZE_MAX,
        )
    after_id = 0
    if page_token:
        if not (page_token.isascii() and page_token.isdigit() and len(page_token) <= 20):
            raise _bad_token(page_token)
        after_id = int(page_token)
        if not 0 < after_id < 2**64:
            raise _bad_token(page_token)
    return after_id, page_size or PAGE_SIZE_DEFAULT


def enum_name(items: Iterable[tuple[str, int]], value: int, prefix: str) -> str:
    """Return the name of an enum's value without its prefix, or its number if it has none."""
    names = {number: name.removeprefix(prefix) for name, number in items}
    return names.get(value, str(value))


def _bad_token(token: str) -> RefusalError:
    return RefusalError(
        FIELD_INVALID,
        f"page_token is {token[:64]!r}: must be a next_page_token of this method",
        field="page_token",
        value=token[:64],
    )
