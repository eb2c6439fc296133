"""What the engine returns to Python, in integers.

Minor units, lots, mark units, ppb, hundredths of leverage.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from riskd.core.journal import Torn


class Tier(NamedTuple):
    floor: int
    initial_rate_ppb: int
    maintenance_rate_ppb: int
    deduction: int
    leverage_max: int


class AssetRow(NamedTuple):
    asset_id: int
    symbol: str
    scale: int


class ScheduleRow(NamedTuple):
    schedule_id: int
    name: str
    asset_id: int
    version: int
    notional_max: int
    liquidation_fee_ppb: int
    tiers: tuple[Tier, ...]
    family: int = 1
    maintenance_basis: int = 1
    parameter_a: int = 0
    parameter_b: int = 0
    parameter_c: int = 0
    closing_fee: int = 0
    parameter_d: int = 0
    parameter_e: int = 0


class InstrumentRow(NamedTuple):
    instrument_id: int
    symbol: str
    kind: int
    asset_id: int
    schedule_id: int
    tick_mantissa: int
    tick_exponent: int
    lot_mantissa: int
    lot_exponent: int
    mark_units_per_tick: int = 1
    order_lots_min: int = 0
    order_lots_max: int = 0
    order_notional_min: int = 0
    order_notional_max: int = 0
    price_collar_ppb: int = 0
    market_buffer_ppb: int = 0
    taker_fee_ppb: int = 0
    mark_age_max_ns: int = 0
    trading_state: int = 0
    expiry_ns: int = 0
    strike_units: int = 0
    option_type: int = 0
    interest_rate_ppb: int = 0
    underlying_id: int = 0
    multiplier_mantissa: int = 1
    multiplier_exponent: int = 0
    option_rule_id: int = 0
    settlement_price: int = 0
    """0 while it is not settled."""
    funding_time_ns: int = 0
    open_interest_lots: int = 0
    base_asset_id: int = 0
    """Of a spot pair."""
    isolated_only: int = 0


class MarkRow(NamedTuple):
    instrument_id: int
    price: int
    time_ns: int
    volatility_ppb: int
    forward: int


class AccountRow(NamedTuple):
    account_id: int
    asset_id: int
    margin_mode: int
    leverage: int
    cash: int
    trading_state: int
    position_mode: int = 1
    firm_id: int = 0
    parent_account_id: int = 0
    credit_line: int = 0
    credit_used: int = 0
    margin_level: int = 0


class BalanceRow(NamedTuple):
    """Another asset than the account's: fees are paid from it, and it may be collateral."""

    asset_id: int
    amount: int


class GatewayRow(NamedTuple):
    """A gateway that is not NORMAL or has a lease."""

    gateway_id: int
    trading_state: int
    lease_end_ns: int
    """0 without a lease."""
    lease_action: int
    lease_swept: int
    """1 once the end has come and the working orders were released."""


class FirmRow(NamedTuple):
    firm_id: int
    asset_id: int
    trading_state: int
    credit_line: int = 0
    credit_used: int = 0


class LimitRow(NamedTuple):
    """docs/limits.md has scopes, kinds and units."""

    scope: int
    scope_id: int
    instrument_id: int
    kind: int
    value: int
    burst: int
    """Of the two rates; 0 for other kinds."""
    action: int
    raised_value: int
    """Counts before raise_until_ns, instead of value."""
    raise_until_ns: int
    due_ns: int
    """Of the two rates: when the next order or execution is due."""
    peak: int
    """Of a drawdown: the largest equity."""


class CollateralRow(NamedTuple):
    """What an asset counts as collateral of accounts in a settlement asset."""

    asset_id: int
    settlement_asset_id: int
    index_instrument_id: int
    cap: int
    """Minor units of the asset that count; 0 is all."""
    liability_ppb: int
    interest_free: int
    forced_conversion: int
    tiers: tuple[tuple[int, int], ...]
    """Floor in minor units of the asset, weight in ppb."""
    wrong_way_ppb: int = 0
    """Of the value, as far as it is exposed to the asset by contracts, that does not count."""


class RiskEventRow(NamedTuple):
    """A change of a margin level: 0 SAFE, 1 SEARCH, 2 LIQUIDATION."""

    revision: int
    time_ns: int
    account_id: int
    instrument_id: int
    """Of an isolated position; 0 is the cross pool."""
    position_side: int
    level_before: int
    level_after: int
    equity: int
    requirement: int


class SummaryRow(NamedTuple):
    account_id: int
    asset_id: int
    cash: int
    cross_pnl: int
    initial_margin: int
    cross_maintenance: int
    cross_liquidation_requirement: int
    available: int
    isolated_wallets: int
    working_orders: int
    known: bool
    """False while a mark that the figures need was never reported: they are 0 then."""
    collateral_value: int = 0
    """Of balances of other assets."""
    credit: int = 0
    """What of a credit line backs the margin; a part of what is available."""
    search_level: int = 0
    """Equity at or below which the pool is called; 0 while levels are off."""
    release_level: int = 0
    """Equity at or above which a call ends; 0 while levels are off."""


class PositionRow(NamedTuple):
    instrument_id: int
    margin_mode: int
    leverage: int
    lots: int
    entry_value: int
    isolated_wallet: int
    mark: int
    notional: int
    unrealised_pnl: int
    initial_margin: int
    maintenance: int
    liquidation_requirement: int
    equity: int
    liquidation_status: int
    liquidation_price: int
    """In mark units, not rounded to ticks."""
    bankruptcy_price: int
    """In mark units, not rounded to ticks; 0 is none."""
    liquidatable: bool
    buy_lots: int
    sell_lots: int
    known: bool
    """False while a mark that the figures need was never reported: they are 0 then."""
    position_side: int = 1
    margin_level: int = 0
    liquidation_price_with_orders: int = 0
    """In mark units, were the orders that add to it filled; 0 unless that brings it nearer."""


class FundingRow(NamedTuple):
    """What funding came to; zeros when it was refused."""

    reason: int
    positions: int
    paid: int
    """Each payment rounded up."""
    received: int
    """Each rounded down."""


class SettlementRow(NamedTuple):
    """What the settlement of an instrument came to; zeros when it was refused."""

    reason: int
    positions: int
    orders: int
    """Working ones that were released."""
    profit: int
    loss: int
    deficit: int
    """Part of the loss that isolated wallets could not pay."""


class HistogramRow(NamedTuple):
    """What a histogram counted."""

    sum: int
    counts: tuple[tuple[int, int], ...]
    """(largest value, count) of each bucket that is not empty, by rising value."""


class DoorRow(NamedTuple):
    """What the native door measured since its start; durations in ns."""

    stages: dict[str, HistogramRow]
    """Of timed calls, by the name of the stage."""
    calls: dict[str, HistogramRow]
    """Of timed calls that were answered, by method, from the first byte to the last."""
    rounds: HistogramRow
    """Calls that were decided in one round."""
    statuses: dict[tuple[str, int], int]
    """All calls that ended, by method and gRPC status."""


class LimitUseRow(NamedTuple):
    """How much of a limit is used."""

    scope: int
    scope_id: int
    instrument_id: int
    kind: int
    value: int
    """What counts now, raised or not."""
    use: int


class LimitUses(NamedTuple):
    """The limits that orders and executions use up."""

    nearest: tuple[LimitUseRow, ...]
    """Those of which the largest part is used, the largest first."""
    known: int
    unknown: int
    """Those whose use cannot be known now, for want of a mark."""
    above_ppm: dict[int, int]
    """How many are used by at least that part."""


class MarkAges(NamedTuple):
    """When instruments that are not settled were marked."""

    oldest: tuple[tuple[int, int], ...]
    """(instrument id, time of the mark in ns), the oldest first."""
    marked: int
    missing: int
    """Instruments that were never marked."""


class JournalLagRow(NamedTuple):
    """What is not yet as durable as was promised."""

    records: int
    size_bytes: int
    time_ns: int
    """Of the oldest record of it; 0: there is none."""
    batches: int
    """Begun since it was opened."""
    has_failed: bool


class WhatIfPosition(NamedTuple):
    """What takes the place of a position in a what-if."""

    instrument_id: int
    position_side: int
    lots: int
    entry_value: int
    wallet: int = 0
    margin_mode: int = 0
    """Of the instrument's positions; 0 leaves it."""
    leverage: int = 0
    """Of the instrument's positions; 0 leaves it."""


class Replay(NamedTuple):
    """What was read back from a journal."""

    records: int
    sequence: int
    """Of the last record; 0 if there is none."""
    differences: int
    """Replies that are not the recorded ones."""
    first_difference: int
    """The sequence of the first of them, or 0."""
    time_ns: int
    """Of the last record."""
    torn: "Torn | None"
    """The tail that is no whole record."""
    snapshot: str | None = None
    """Where it began, unless with the first record."""
    refused_snapshots: tuple[str, ...] = ()
    """Newer ones that could not be used, and why."""
