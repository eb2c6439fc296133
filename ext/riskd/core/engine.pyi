"""The engine: state and decisions. Numbers are integers as in docs/decision.md.

What a journal's records hold is at the top of engine.pyx.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Self, final

from riskd.core.journal import Faults, Journal
from riskd.core.permits import Permission
from riskd.core.rows import AccountRow as AccountRow
from riskd.core.rows import AssetRow as AssetRow
from riskd.core.rows import BalanceRow as BalanceRow
from riskd.core.rows import CollateralRow as CollateralRow
from riskd.core.rows import FirmRow as FirmRow
from riskd.core.rows import FundingRow as FundingRow
from riskd.core.rows import GatewayRow as GatewayRow
from riskd.core.rows import InstrumentRow as InstrumentRow
from riskd.core.rows import LimitRow as LimitRow
from riskd.core.rows import MarkRow as MarkRow
from riskd.core.rows import PositionRow as PositionRow
from riskd.core.rows import Replay as Replay
from riskd.core.rows import RiskEventRow as RiskEventRow
from riskd.core.rows import ScheduleRow as ScheduleRow
from riskd.core.rows import SettlementRow as SettlementRow
from riskd.core.rows import SummaryRow as SummaryRow
from riskd.core.rows import Tier as Tier
from riskd.core.rows import WhatIfPosition as WhatIfPosition

METHOD_CHECK_ORDER: Final = 1
METHOD_REPORT_EXECUTION: Final = 2
METHOD_GET_RESERVATION: Final = 3
METHOD_REPORT_MARKS: Final = 4
METHOD_CHECK_AMENDMENT: Final = 5
METHOD_BATCH_CHECK_ORDERS: Final = 6
METHOD_ADVANCE_TIME: Final = 7

CHANGE_NAMES: Final[tuple[str, ...]]
"""Names of all recorded changes but hot requests."""

SCOPE_SERVICE: Final = 1
SCOPE_GATEWAY: Final = 2
SCOPE_ACCOUNT: Final = 3
SCOPE_INSTRUMENT: Final = 4
SCOPE_FIRM: Final = 5

class DeniedError(Exception):
    """The caller has no permission for what the request names. Nothing changed.

    reason is 5 for an account, 6 for a gateway, and value is its number.
    """

    reason: int
    value: int
    def __init__(self, reason: int, value: int) -> None: ...

class MalformedRequestError(ValueError):
    """The request's bytes are not a valid message.

    Names the field and what is wrong. Nothing changed.
    """

class ReplayError(Exception):
    """The journal does not lead to the state that it was written from, or is of a newer program."""

    file: str
    offset: int
    sequence: int
    reason: str
    def __init__(self, file: str, offset: int, sequence: int, reason: str) -> None: ...

@final
class Engine:
    """All state of one partition. Thread-safe: one lock around each call.

    With a journal, a method returns when all that its answer can show is as durable as was
    promised, and otherwise raises JournalFullError (nothing was applied), JournalFailedError or
    JournalClosedError. A change has a time (0: that of the last change) and an actor, who made it.
    """

    def __new__(
        cls,
        *,
        accounts_max: int = ...,
        positions_max: int = ...,
        orders_max: int = ...,
        instruments_max: int = ...,
        schedules_max: int = ...,
        gateways_max: int = ...,
        balances_max: int = ...,
        firms_max: int = ...,
        limits_max: int = ...,
        holdings_max: int = ...,
        answer_bytes: int = ...,
    ) -> Self: ...
    @property
    def revision(self) -> int: ...
    def handle(self, method: int, request: bytes, now_ns: int) -> bytes:
        """Apply one hot request (its protobuf bytes) and return the reply's bytes.

        Raises MalformedRequestError if the bytes are not a valid message, ValueError for a method
        that is not known.
        """
    def submit(
        self, method: int, request: bytes, now_ns: int, permission: Permission | None = None
    ) -> tuple[bytes, int]:
        """Apply like `handle` and return (reply, sequence) at once.

        The reply must not leave before durable_sequence is at least the sequence: 0 if nothing is
        kept. Raises JournalFullError without waiting for room, DeniedError if there is a permission
        that does not reach the request's accounts and gateways.
        """
    def submit_streamed(
        self, request: bytes, now_ns: int, permission: Permission | None = None
    ) -> tuple[bytes, int]:
        """Apply a StreamOrdersRequest as `submit` does its one field; the reply is whole."""
    def door(self) -> object:
        """Return the engine as native threads use it, a capsule that must not outlive it.

        Once open_journal is done, if it is to be used at all.
        """
    def open_journal(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: Literal["process", "machine"] = "machine",
        segment_bytes: int = ...,
        buffer_bytes: int = ...,
        append_wait_ms_max: int = 10_000,
        accept_differences: bool = False,
        now_ns: int = 0,
        progress: Callable[[int], None] | None = None,
        faults: Faults | None = None,
    ) -> Replay:
        """Recover from a directory's journal into this engine, which must be new; go on with it.

        Capacities other than the journal's are a change, recorded here, which can raise as
        set_capacities does. Changes are not taken to come before now_ns. The options of the journal
        are those of Journal.open, the others those of `recover`. Raises what both raise; then the
        engine can only be thrown away. Before anybody else uses the engine.
        """
    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the book for several changes: nobody decides by, or reads, a part of them.

        Each is a record of its own. At the end of the with block all of them are durable; an
        exception takes none back.
        """
    def close_journal(self) -> None:
        """Keep what is in memory and close the journal: no method works after it.

        Raises JournalFailedError if the journal failed. Nothing happens without a journal.
        """
    @property
    def journal(self) -> Journal | None:
        """The journal, or None: nothing is kept."""
    @property
    def durable_sequence(self) -> int:
        """The last record that is as durable as was promised; 0 if there is none."""
    def watch_replay(
        self,
        watcher: Callable[[str, Mapping[str, Any], str, int, Callable[[], Any]], None] | None,
    ) -> None:
        """Hand changes that are replayed from now on to a watcher (None: to nobody).

        It gets the change, its arguments, actor and time, and a function that applies it and
        returns its answer, which it must call once.
        """
    @property
    def change_revision(self) -> int:
        """The revision after the last change from outside the hot door; 0 before the first."""
    def recover(
        self,
        directory: str | os.PathLike[str],
        *,
        until_sequence: int | None = None,
        from_oldest: bool = False,
        accept_differences: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Replay:
        """Load the newest snapshot that can be used and replay what follows; only reads.

        until_sequence is the last record, for a journal that is being written; from_oldest takes
        the oldest snapshot, so that as much as can be is replayed. The others and what
        it raises are as in `replay`. A snapshot that is invalid, or not of this journal, is named
        in the result. For a new engine; after an error it can only be thrown away.
        """
    def write_snapshot(self, directory: str | os.PathLike[str]) -> str:
        """Write all of it beside the journal that it was read back from; return the path.

        It is read back from the disk and compared. Raises ValueError if nothing was read back or
        the journal is open for writing, SnapshotInvalidError, OSError; then there is no such file.
        """
    def replay(
        self,
        directory: str | os.PathLike[str],
        *,
        from_sequence: int = 1,
        until_sequence: int | None = None,
        accept_differences: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Replay:
        """Apply the records of a journal, which is only read, from a sequence to another.

        progress is called now and then with the records done. Raises ReplayError if a record does
        not lead to its revision, or (unless differences are accepted) not to its reply, and
        JournalDamagedError, OSError. Before anybody else uses the engine.
        """
    def create_asset(
        self, symbol: str, scale: int, *, now_ns: int = 0, actor: str = "riskd"
    ) -> tuple[int, int]:
        """Return (reason, asset id)."""
    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = 0,
        liquidation_fee_ppb: int = 0,
        family: int = 1,
        maintenance_basis: int = 1,
        parameter_a: int = 0,
        parameter_b: int = 0,
        parameter_c: int = 0,
        closing_fee: int = 0,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> tuple[int, int]:
        """Tiers are (floor, initial_rate_ppb, maintenance_rate_ppb, leverage_max).

        Families, bases and parameters: docs/instruments.md. Return (reason, schedule id).
        """
    def upsert_option_rule(
        self,
        name: str,
        asset_id: int,
        initial_ppb: int,
        initial_min_ppb: int,
        maintenance_ppb: int,
        put_maintenance: int = 0,
        parameter_d: int = 0,
        parameter_e: int = 0,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> tuple[int, int]:
        """Let the options that name it be short; put_maintenance is 0 to 2.

        It is a row of `schedules()` too. Return (reason, id).
        """
    def report_open_interest(
        self,
        instrument_id: int,
        lots: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Say how many lots of an instrument are open; 0 is not known. Return the reason."""
    def upsert_instrument(
        self,
        symbol: str,
        kind: int,
        asset_id: int,
        schedule_id: int,
        tick_mantissa: int,
        tick_exponent: int,
        lot_mantissa: int,
        lot_exponent: int,
        mark_units_per_tick: int = 1,
        order_lots_min: int = 0,
        order_lots_max: int = 0,
        order_notional_min: int = 0,
        order_notional_max: int = 0,
        price_collar_ppb: int = 0,
        market_buffer_ppb: int = 0,
        taker_fee_ppb: int = 0,
        mark_age_max_ns: int = 0,
        trading_state: int = 0,
        expiry_ns: int = 0,
        strike_units: int = 0,
        option_type: int = 0,
        interest_rate_ppb: int = 0,
        underlying_id: int = 0,
        multiplier_mantissa: int = 1,
        multiplier_exponent: int = 0,
        option_rule_id: int = 0,
        base_asset_id: int = 0,
        isolated_only: int = 0,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> tuple[int, int]:
        """Return (reason, instrument id).

        Steps are mantissa * 10^exponent and compared as given; strike_units are mark units;
        trading_state 0 keeps what the instrument has, NORMAL for a new one.
        """
    def create_account(
        self,
        account_id: int,
        asset_id: int,
        margin_mode: int,
        leverage: int,
        cash: int,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Return the reason."""
    def adjust_collateral(
        self,
        account_id: int,
        asset_id: int,
        amount: int,
        validate_only: bool,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> tuple[int, int, int]:
        """Return (reason, cash, available) as after it.

        Of another asset than the account's, its balance instead of the cash.
        """
    def transfer_margin(
        self,
        account_id: int,
        instrument_id: int,
        amount: int,
        validate_only: bool,
        now_ns: int,
        position_side: int = 0,
        *,
        actor: str = "riskd",
    ) -> tuple[int, int, int]:
        """Return (reason, isolated wallet, available) as after it."""
    def change_margin_mode(
        self,
        account_id: int,
        instrument_id: int,
        margin_mode: int,
        validate_only: bool,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> tuple[int, int, int, int]:
        """Return (reason, isolated wallet, available, cash flow) as after it.

        The wallet is that of all positions on the instrument, the cash flow what the pool gets (0
        when it is refused).
        """
    def set_leverage(
        self,
        account_id: int,
        instrument_id: int,
        leverage: int,
        validate_only: bool,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> tuple[int, int, int]:
        """Return (reason, leverage, available) as after it."""
    def set_position_mode(
        self, account_id: int, position_mode: int, *, now_ns: int = 0, actor: str = "riskd"
    ) -> int:
        """Return the reason."""
    def renew_lease(
        self,
        gateway_id: int,
        duration_ns: int,
        action: int,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> int:
        """Return the reason. A duration of 0 frees the gateway of its lease."""
    def cancel_orders(
        self,
        gateway_id: int,
        account_id: int,
        instrument_id: int,
        side: int,
        accepted_before_ns: int,
        keep: Sequence[int],
        validate_only: bool,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> tuple[int, int, list[int]]:
        """Release the working orders that fit all that is given (not 0) and are not to be kept.

        Return (reason, how many, the first 10,000 of their reservations).
        """
    def set_trading_state(
        self,
        scope: int,
        scope_id: int,
        trading_state: int,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Return the reason."""
    def create_firm(
        self, firm_id: int, asset_id: int, *, now_ns: int = 0, actor: str = "riskd"
    ) -> int:
        """Return the reason."""
    def set_account_owner(
        self,
        account_id: int,
        firm_id: int,
        parent_account_id: int,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> int:
        """Return the reason. 0 is no firm, and no parent."""
    def set_limit(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        value: int,
        burst: int,
        action: int,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> int:
        """Return the reason. docs/limits.md has the units; burst is of the two rates, else 0."""
    def raise_limit(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        value: int,
        until_ns: int,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> int:
        """Return the reason."""
    def remove_limit(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        *,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Return the reason."""
    def reset_usage(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        now_ns: int,
        *,
        actor: str = "riskd",
    ) -> int:
        """Return the reason."""
    def load_position(
        self,
        account_id: int,
        instrument_id: int,
        position_side: int,
        lots: int,
        entry_value: int,
        wallet: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> tuple[int, int, int]:
        """Take over a position that exists already; lots are signed, the wallet is new money.

        Return (reason, isolated wallet, available) as after it.
        """
    def apply_funding(
        self,
        instrument_id: int,
        rate_ppb: int,
        price: int,
        time_ns: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> FundingRow:
        """Let longs pay shorts a rate of the notional, below 0 the other way.

        The price is in mark units, 0 is the mark.
        """
    def settle_instrument(
        self,
        instrument_id: int,
        price: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> SettlementRow:
        """Close every position for good; the price is in mark units, of an option's underlying in
        those of the strike.
        """
    def set_margin_levels(
        self,
        search_ppm: int,
        release_ppm: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Set where levels lie, in parts per million of the requirement, 0 and 0 for none.

        Return the reason.
        """
    def evaluate_levels(self, first: int, count: int, now_ns: int) -> tuple[int, int]:
        """Look at up to 65,536 accounts by their places, from 0 in the order of creation.

        Return (where to go on, 0 after the last account; levels that changed). Only a change is
        recorded, and it is nobody's: change_revision stays.
        """
    def define_collateral(
        self,
        asset_id: int,
        settlement_asset_id: int,
        index_instrument_id: int,
        tiers: Sequence[tuple[int, int]],
        cap: int = 0,
        liability_ppb: int = 1_000_000_000,
        interest_free: int = 0,
        forced_conversion: int = 0,
        wrong_way_ppb: int = 0,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Say what an asset counts for accounts in another; tiers are (floor, weight_ppb).

        Return the reason.
        """
    def set_credit_line(
        self,
        scope: int,
        scope_id: int,
        amount: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
        actor: str = "riskd",
    ) -> int:
        """Set how much credit backs the margin of an account or of a firm. Return the reason."""
    def set_capacities(self, *, now_ns: int = 0, actor: str = "riskd", **capacities: int) -> bool:
        """Change how much fits, by the names of the constructor; return whether anything changed.

        Growing always works. A smaller ring keeps the newest answers that fit. Everything is moved
        under the lock, and is twice in memory meanwhile. Raises ValueError if a table holds more
        than its new capacity, MemoryError; then nothing has changed.
        """
    def firms(self) -> list[FirmRow]: ...
    def collateral(self) -> list[CollateralRow]:
        """Return what counts, by settlement asset, then asset."""
    def collateral_values(self, account_id: int) -> list[tuple[int, int, int | None]] | None:
        """Return (asset id, balance, what it counts) of an account's balances, by asset.

        What one counts is None while its index was never reported, and of a debt in an asset that
        is not defined; the whole is None if the account is not known.
        """
    def margin_levels(self) -> tuple[int, int]:
        """Return search and release in ppm of the requirement, 0 and 0 while levels are off."""
    def risk_events(
        self, after_revision: int, account_id: int, limit: int
    ) -> tuple[list[RiskEventRow], int]:
        """Return changes of levels after a revision, of an account (0: of all), the oldest first.

        Beside them 0, or the revision of the oldest that is kept when older ones may be gone.
        """
    def limits(self) -> list[LimitRow]:
        """Return all limits by scope, id, instrument and kind."""
    def limit_use(
        self, scope: int, scope_id: int, instrument_id: int, kind: int, now_ns: int
    ) -> int | None:
        """Return how much of a limit is used now, in its unit; None while that cannot be known.

        Raises KeyError if there is no such limit.
        """
    def capacities(self) -> dict[str, int]:
        """Return the capacities by name."""
    def assets(self) -> list[AssetRow]: ...
    def schedules(self) -> list[ScheduleRow]: ...
    def instruments(self) -> list[InstrumentRow]: ...
    def mark(self, instrument_id: int) -> MarkRow | None:
        """Return the mark, or None if none was reported.

        Raises KeyError for an unknown instrument.
        """
    def account(self, account_id: int) -> AccountRow | None: ...
    def accounts(self, after_id: int, count_max: int) -> list[AccountRow]:
        """Return up to count_max accounts with larger ids, in order."""
    def summary(self, account_id: int) -> SummaryRow | None: ...
    def positions(self, account_id: int) -> list[PositionRow] | None:
        """Return the account's positions, with orders or settings too, by instrument id."""
    def max_order_lots(
        self,
        account_id: int,
        instrument_id: int,
        side: int,
        order_type: int,
        price_ticks: int,
        now_ns: int,
        position_side: int = 0,
    ) -> tuple[int, int]:
        """Return (lots, reason that stops one lot more.

        Or, with 0 lots, the first reason of one lot).
        """
    def balances(self, account_id: int) -> list[BalanceRow] | None:
        """Return what an account has of other assets than its own, by asset id."""
    def gateways(self) -> list[GatewayRow]:
        """Return the gateways that are not NORMAL or have a lease, by id."""
    def trading_states(self) -> list[tuple[int, int, int]]:
        """Return (scope, id, state) of everything that is not NORMAL."""
    def working_reservations(self, scope: int, scope_id: int, count_max: int) -> list[int]:
        """Return up to count_max reservation ids of working orders in the scope, in order."""
    def what_if(
        self, account_id: int, *, positions: int = 0, schedules: int = 0, orders: int = 0
    ) -> Engine:
        """Return a copy of definitions, marks and one account (0: none), with no journal.

        It has room for so many more positions, schedules and orders. Of the account it has cash,
        balances, positions and the sums of working orders, no firm, parent, limits or orders.
        Raises KeyError if there is no such account.
        """
    def put_balance(self, account_id: int, asset_id: int, amount: int) -> None:
        """Replace cash, or what a what-if's account has of another asset; no rule is checked.

        Raises ValueError for what is no what-if or does not fit, KeyError for another account.
        """
    def put_position(self, account_id: int, position: WhatIfPosition) -> None:
        """Replace a position of a what-if's account; no rule is checked, working orders stay.

        Raises as put_balance does, and MemoryError where no room was asked for.
        """
    def state_lines(self) -> list[str]:
        """Return the state as text, one fact a line, in canonical order; see docs/state.md."""
    def state_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the state lines, each ended by a newline."""
    def answers_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the remembered answers, oldest first; see docs/state.md."""
