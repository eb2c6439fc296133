"""What every servicer stands on: engine, catalogue, clock, and the lookups that refuse."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

from riskd.catalogue import Asset, Catalogue, Instrument
from riskd.services.changes import ChangeTrail, Origin, log_change
from riskd.services.commits import Commits
from riskd.services.errors import FIELD_INVALID, RefusalError, caller_of, enum_name
from riskd.services.messages import Messages
from riskd.v1 import types_pb2

if TYPE_CHECKING:
    from riskd.core.engine import AccountRow, Engine

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
COMMENT_BYTES_MAX = 255

_ONE_WAY_SIDES = (types_pb2.POSITION_SIDE_UNSPECIFIED, types_pb2.POSITION_SIDE_NET)
_HEDGE_SIDES = (types_pb2.POSITION_SIDE_LONG, types_pb2.POSITION_SIDE_SHORT)


class Backend:
    """The engine as the servicers see it.

    change_lock is held over changes that read before they write, so that two of them do not mix.
    The engine has its own lock for each call, and the hot methods never take this one.
    """

    def __init__(
        self,
        engine: "Engine",
        clock: Callable[[], int],
        room_wait_s: float,
        trail: ChangeTrail | None = None,
    ) -> None:
        self.engine = engine
        self.commits = Commits(engine, room_wait_s)
        self.catalogue = Catalogue(engine)
        self.messages = Messages(engine, self.catalogue)
        self.trail = trail or ChangeTrail(engine)
        self.clock = clock
        self.change_lock = threading.RLock()

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
        return self.messages.asset_of(asset_id)

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

    def firm_asset(self, firm_id: int) -> Asset:
        """Return the settlement asset of a firm, or refuse."""
        asset = self.catalogue.asset_of_firm(firm_id)
        if asset is None:
            raise RefusalError(
                types_pb2.REASON_CODE_FIRM_UNKNOWN,
                f"firm_id {firm_id} is unknown",
                field="firm_id",
                value=firm_id,
            )
        return asset

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

    def can_trade(self, account: "AccountRow", instrument: Instrument) -> bool:
        """Return whether an instrument settles in the account's asset, or in its collateral."""
        pair = instrument.asset.asset_id, account.asset_id
        return pair[0] == pair[1] or any(
            (row.asset_id, row.settlement_asset_id) == pair for row in self.engine.collateral()
        )

    def position_side(
        self, account: "AccountRow", position_side: int, instrument: Instrument
    ) -> int:
        """Return which position of an account is meant: NET where it is not set, or refuse."""
        is_hedged = (
            account.position_mode == types_pb2.POSITION_MODE_HEDGE and not instrument.is_spot
        )
        if position_side not in (_HEDGE_SIDES if is_hedged else _ONE_WAY_SIDES):
            raise _bad_position_side(
                position_side,
                "LONG or SHORT in hedge mode" if is_hedged else "NET or not set in one-way mode",
            )
        return position_side or types_pb2.POSITION_SIDE_NET

    def figures_known(self, account_id: int) -> bool:
        """Return whether every mark that the account's figures need was reported."""
        summary = self.engine.summary(account_id)
        return summary is not None and summary.known

    def change(
        self, context: grpc.ServicerContext, request: Message, command: str, **arguments: Any
    ) -> Any:
        """Change the engine by the method so named; return what it answers, the reason first.

        A change that is made goes on record and is one line in the log; one that is only validated
        is neither.
        """
        caller = caller_of(context)
        origin = Origin.of(caller.actor, request)
        with self.change_lock:
            arguments.setdefault("now_ns", self.clock())
            if arguments.get("validate_only"):
                return getattr(self.engine, command)(**arguments)
            answer, change = self.trail.make(
                origin,
                arguments["now_ns"],
                command,
                arguments,
                lambda: getattr(self.engine, command)(**arguments, actor=origin.to_text()),
            )
        if change is not None:
            log_change(change, caller.peer())
        return answer


def check_comment(comment: str) -> None:
    """Refuse a comment that is too long for the audit."""
    size_bytes = len(comment.encode())
    if size_bytes > COMMENT_BYTES_MAX:
        raise RefusalError(
            FIELD_INVALID,
            f"comment has {size_bytes} bytes: must have at most {COMMENT_BYTES_MAX}",
            field="comment",
            value=size_bytes,
            bound=COMMENT_BYTES_MAX,
        )


def check_both_sides(position_side: int) -> None:
    """Refuse a position side where a setting holds for all of an instrument's positions."""
    if position_side not in _ONE_WAY_SIDES:
        raise _bad_position_side(position_side, "NET or not set, it holds for both sides")


def _bad_position_side(position_side: int, bound: str) -> RefusalError:
    name = enum_name(types_pb2.PositionSide.items(), position_side, "POSITION_SIDE_")
    return RefusalError(
        types_pb2.REASON_CODE_POSITION_SIDE_NOT_SUPPORTED,
        f"position_side is {name}: must be {bound}",
        field="position_side",
        value=position_side,
        bound=bound,
    )


def page_count(size: int) -> int:
    """Return the most entries of a page, of the size that was asked for."""
    if size > PAGE_SIZE_MAX:
        raise RefusalError(
            FIELD_INVALID,
            f"page_size is {size}: must be 0 to {PAGE_SIZE_MAX}",
            field="page_size",
            value=size,
            bound=PAGE_SIZE_MAX,
        )
    return size or PAGE_SIZE_DEFAULT


def page_bounds(size: int, page_token: str) -> tuple[int, int]:
    """Return (id after which the page starts, most entries of the page).

    A token is the last id of the page before, in decimal.
    """
    after_id = 0
    if page_token:
        if not (page_token.isascii() and page_token.isdigit() and len(page_token) <= 20):
            raise _bad_token(page_token)
        after_id = int(page_token)
        if not 0 < after_id < 2**64:
            raise _bad_token(page_token)
    return after_id, page_count(size)


def _bad_token(token: str) -> RefusalError:
    return RefusalError(
        FIELD_INVALID,
        f"page_token is {token[:64]!r}: must be a next_page_token of this method",
        field="page_token",
        value=token[:64],
    )
