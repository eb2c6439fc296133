"""`riskd conform`: run golden vectors against the library.

A vector file has one JSON object a line: id, venue, model, inputs, expected, tolerance, source
(tests/vectors/README.md). A model's adapter reads a row's inputs, calls riskd.pricing or
riskd.margin and returns the outputs that it knows; it contains no formula. What differs between
venues is in VENUES. A row passes when every expected output is within tolerance. It is not covered
when the model, the venue or one of its outputs is not; it fails when a figure is out of tolerance,
an input is missing or wrong, or the line is not a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from riskd import margin, pricing
from riskd.margin import CrossPosition, Tier, TierSchedule
from riskd.pricing import DeltaConvention, Greeks

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Venue:
    """How a venue chooses among the rules, and in which units it quotes Greeks."""

    # The models in which the library's rule is the venue's.
    models: frozenset[str] = frozenset()
    # The taker fee on the notional at the liquidation price is part of the requirement.
    fee_in_liquidation: bool = False
    # Tiers count the position's size, and the whole position has the rate of its tier.
    tiers_by_size: bool = False
    # A maintenance rate that a row does not state is this part of 1 / max_leverage.
    maintenance_of_initial: Decimal | None = None
    # A wallet called isolated_margin has the unrealised profit in it.
    margin_includes_pnl: bool = False
    # The isolated price of a long is printed one tick above the formula's.
    isolated_long_adds_tick: bool = False
    # vega and theta without a unit in their names are per 0.01 and per day; rho is not comparable.
    greeks_per_point: bool = False
    # Gamma and theta of the last day are not compared: the venue scales at least one of them.
    scales_last_day: bool = False


_TIERS = frozenset({"maintenance_tier", "maintenance_tier_table", "max_leverage_for_stake"})
_LIQUIDATION = frozenset({"isolated_liquidation_linear", "cross_liquidation"})
_MARGIN = frozenset({"margin_linear"})

# By the venue's name or its beginning. A venue that is not here, or a model that is not among its
# models, follows a rule of another family: maintenance on the entry value, rates as functions of
# size, coin-settled contracts.
VENUES: Mapping[str, Venue] = {
    # The venue's FAQ on liquidation prices, as in freqtrade@c9ae5e1e
    # tests/exchange/test_binance.py; the tier at that price: positionRisk responses of 2024-10-24.
    "Binance USD-M": Venue(_TIERS | _LIQUIDATION | _MARGIN, margin_includes_pnl=True),
    # The venue's FAQ on COIN-M leverage and margin: brackets in coin, the same table.
    "Binance COIN-M": Venue(frozenset({"maintenance_tier_table"})),
    # Live position responses: mgnRatio = equity / (maintenance + taker fee), liqPx; tiers as in
    # freqtrade@c9ae5e1e tests/exchange/test_okx.py. Three isolated longs were one tick higher.
    "OKX": Venue(
        frozenset({"maintenance_tier"}) | _LIQUIDATION | _MARGIN,
        fee_in_liquidation=True,
        tiers_by_size=True,
        isolated_long_adds_tick=True,
    ),
    # freqtrade@c9ae5e1e tests/exchange/test_exchange.py
    "Gate": Venue(frozenset({"isolated_liquidation_linear"}), fee_in_liquidation=True),
    # phemex.com/help-center/liq-price-for-USDTM
    "Phemex": Venue(frozenset({"isolated_liquidation_linear"}), fee_in_liquidation=True),
    # Half of the initial rate at the asset's largest leverage: freqtrade@3b1fb5af
    # tests/exchange/test_hyperliquid.py.
    "Hyperliquid": Venue(_TIERS | _LIQUIDATION | _MARGIN, maintenance_of_initial=Decimal("0.5")),
    # kucoin.com/support/26694703491737: maintenance on the notional. Its liquidation price is of
    # another family.
    "KuCoin": Venue(frozenset({"maintenance_tier"})),
    # Units of the tickers' Greeks, seen in captures. Below one day Deribit's theta, and Bybit's
    # gamma and theta, are not those of the formula.
    "Deribit": Venue(greeks_per_point=True, scales_last_day=True),
    "Bybit": Venue(greeks_per_point=True, scales_last_day=True),
}
_ANY_VENUE = Venue()


class NotCoveredError(Exception):
    """The library has no rule for this row yet."""


def venue_of(name: str) -> Venue:
    """Return the record whose key is the longest beginning of the name that ends with a word."""
    keys = [
        key
        for key in VENUES
        if name.startswith(key) and not name[len(key) : len(key) + 1].isalnum()
    ]
    return VENUES[max(keys, key=len)] if keys else _ANY_VENUE


# Names under which vector files hold the same input.
_SIDE = ("side", "position_side", "direction")
_QUANTITY = ("qty", "quantity", "qty_coin", "size", "position_qty", "position_amt", "amount")
_CONTRACTS = ("contracts", "lots")
_CONTRACT_SIZE = ("lot_size", "contract_size", "contract_value", "ct_val")
_ENTRY = ("entry", "entry_price", "avg_px", "open_price", "price")
_MARK = ("mark", "mark_price")
_WALLET = (
    "isolated_wallet",
    "margin_quote",
    "assigned_margin",
    "wallet_balance_quote",
    "wallet_balance",
    "wallet",
    "margin",
)
_EQUITY = ("equity", "equity_quote", "equity_from_ratio", "account_value")
_PROFIT = ("unrealised_pnl", "unrealized_pnl", "unrealized_profit", "upnl", "upl")
_NOTIONAL = ("notional", "notional_at_mark", "notional_quote", "position_value", "value")
_RATE = (
    "mmr",
    "maintenance_rate",
    "maintenance_margin_rate",
    "maintenanceMarginRate",
    "maintMarginRatio",
    "mm_rate",
)
_DEDUCTION = ("maint_amount", "maintAmt", "maintenance_amount", "mm_amount", "cum", "deduction")
_FLOOR = ("min", "minNotional", "min_notional", "floor", "notional_floor", "lower", "lower_bound")
_CEILING = ("max", "maxNotional", "max_notional", "cap", "notional_cap", "upper", "upper_bound")
_MAX_LEVERAGE = ("max_leverage", "maxLeverage", "symbol_max_leverage", "initialLeverage")
_LEVERAGE = ("leverage", "leverage_chosen")
_FEE = ("taker_fee", "taker_fee_rate", "liquidation_fee", "liquidation_fee_rate", "fee_rate")
_TICK = ("tick", "tick_size", "price_tick")
_STAKE = ("stake_quote", "stake", "stake_amount")
_VOLATILITY = ("vol", "volatility", "sigma", "iv", "implied_vol", "mark_iv")
_TIME = ("time_years", "years", "time_to_expiry_years", "t")
_INTEREST = ("rate_cont", "rate", "r")
_YIELD = ("dividend_yield", "dividend_yield_cont", "q")
_CARRY = ("cost_of_carry", "carry", "b")


def _find(inputs: Inputs, names: Sequence[str]) -> Any:
    """Return the first of the names that has a value, or None."""
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)


def _number(inputs: Inputs, names: Sequence[str]) -> Decimal | None:
    for name in names:
        if inputs.get(name) is not None:
            return margin.decimal(f"inputs.{name}", inputs[name])
    return None


def _need(inputs: Inputs, names: Sequence[str]) -> Decimal:
    number = _number(inputs, names)
    if number is None:
        raise ValueError(f"inputs.{names[0]} is missing")
    return number


def _float(inputs: Inputs, names: Sequence[str], default: float | None = None) -> float:
    if default is not None and _find(inputs, names) is None:
        return default
    return float(_need(inputs, names))


def _text(inputs: Inputs, names: Sequence[str]) -> str:
    value = _find(inputs, names)
    if not isinstance(value, str):
        raise ValueError(f"inputs.{names[0]} must be a text, got {value!r}")
    return value


def _mapping(name: str, value: Any) -> Inputs:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {value!r}")
    return value


def _items(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r}")
    return value


def _quantity(inputs: Inputs) -> Decimal:
    """Return the signed quantity: its own sign is that of the side, or its own without a side."""
    quantity = _number(inputs, _QUANTITY)
    if quantity is None:
        lots = _need(inputs, (*_QUANTITY, *_CONTRACTS))
        quantity = lots * _need(inputs, _CONTRACT_SIZE)
    if _find(inputs, _SIDE) is None:
        return quantity
    side = _text(inputs, _SIDE).lower()
    if side in ("long", "buy"):
        return quantity.copy_abs()
    if side in ("short", "sell"):
        return -quantity.copy_abs()
    raise ValueError(f"inputs.side must be long or short, got {side!r}")


def _rate(inputs: Inputs, venue: Venue) -> Decimal:
    leverage = _number(inputs, _MAX_LEVERAGE)
    part = venue.maintenance_of_initial
    if _number(inputs, _RATE) is None and part is not None and leverage is not None:
        return margin.maintenance_rate_of_leverage(leverage, part)
    return margin.round_rate_up(_need(inputs, _RATE))


def _schedule(inputs: Inputs, venue: Venue) -> TierSchedule:
    """Return the tiers of a row, or its one rate and amount."""
    if inputs.get("tiers") is None:
        return TierSchedule.flat(_rate(inputs, venue), _number(inputs, _DEDUCTION) or 0)
    tiers: list[Tier] = []
    ceiling: Decimal | None = None
    for index, item in enumerate(_items("inputs.tiers", inputs["tiers"])):
        row = _mapping(f"inputs.tiers[{index}]", item)
        # Where sizes are whole numbers the next tier may begin at the ceiling and one.
        floor = ceiling if ceiling is not None else _need(row, _FLOOR)
        tiers.append(
            Tier.of(
                floor,
                _rate(row, venue),
                deduction=0 if venue.tiers_by_size else _number(row, _DEDUCTION),
                max_leverage=_number(row, _MAX_LEVERAGE),
            )
        )
        ceiling = _number(row, _CEILING)
    return TierSchedule(tuple(tiers), ceiling)


def _position_schedule(inputs: Inputs, venue: Venue) -> TierSchedule:
    """Return the tiers that apply to a position at any price."""
    schedule = _schedule(inputs, venue)
    if not venue.tiers_by_size or len(schedule.tiers) == 1:
        return schedule
    size = _need(inputs, (*_CONTRACTS, *_QUANTITY)).copy_abs()
    return TierSchedule.flat(margin.tier_at(schedule, size).maintenance_rate)


def _fee(inputs: Inputs, venue: Venue) -> Decimal:
    return _need(inputs, _FEE) if venue.fee_in_liquidation else Decimal(0)


def _notional(inputs: Inputs) -> Decimal:
    stated = _number(inputs, _NOTIONAL)
    if stated is not None:
        return stated
    return margin.notional(_quantity(inputs), _need(inputs, (*_MARK, *_ENTRY)))


def _isolated_wallet(inputs: Inputs, venue: Venue) -> Decimal:
    wallet = _number(inputs, _WALLET)
    if wallet is not None:
        return wallet
    wallet = _number(inputs, ("isolated_margin",))
    if wallet is None:
        leverage = _number(inputs, _LEVERAGE)
        if leverage is None:
            raise ValueError(f"inputs.{_WALLET[0]} is missing")
        entry_value = margin.notional(_quantity(inputs), _need(inputs, _ENTRY))
        return margin.initial_margin(entry_value, leverage)
    if not venue.margin_includes_pnl:
        return wallet
    profit = _number(inputs, _PROFIT)
    if profit is None:
        profit = margin.unrealised_pnl(
            _quantity(inputs), _need(inputs, _ENTRY), _need(inputs, _MARK)
        )
    return wallet - profit


def _with_position(inputs: Inputs) -> Inputs:
    """Return the inputs with those of the object `position`, if there is one, beside them."""
    if inputs.get("position") is None:
        return inputs
    return {**inputs, **_mapping("inputs.position", inputs["position"])}


def maintenance_tier(inputs: Inputs, venue: Venue) -> Outputs:
    schedule = _schedule(inputs, venue)

    def tier() -> Tier:
        sizes = (*_QUANTITY, *_CONTRACTS)
        amount = _need(inputs, sizes) if venue.tiers_by_size else _notional(inputs)
        return margin.tier_at(schedule, amount)

    def amount_off() -> Decimal | None:
        if venue.tiers_by_size:
            return None
        found = tier()
        if found.deduction is not None:
            return found.deduction
        return margin.deductions(schedule)[schedule.tiers.index(found)]

    def maintenance() -> Decimal:
        return margin.maintenance_margin(_notional(inputs), _position_schedule(inputs, venue))

    return {
        "notional": lambda: _notional(inputs),
        "mmr": lambda: tier().maintenance_rate,
        "maint_amount": amount_off,
        "maintenance_margin": maintenance,
    }


def maintenance_tier_table(inputs: Inputs, venue: Venue) -> Outputs:
    return {"cum": lambda: list(margin.deductions(_schedule(inputs, venue)))}


def max_leverage_for_stake(inputs: Inputs, venue: Venue) -> Outputs:
    return {
        "max_leverage": lambda: margin.max_leverage_for_stake(
            _need(inputs, _STAKE), _schedule(inputs, venue)
        )
    }


def margin_linear(inputs: Inputs, venue: Venue) -> Outputs:
    amount = _notional(inputs)
    return {
        "notional": lambda: amount,
        "initial_margin": lambda: margin.initial_margin(amount, _need(inputs, _LEVERAGE)),
        "maintenance_margin": lambda: margin.maintenance_margin(
            amount, _position_schedule(inputs, venue)
        ),
    }


def isolated_liquidation_linear(inputs: Inputs, venue: Venue) -> Outputs:
    row = _with_position(inputs)

    def price() -> Decimal | None:
        quantity = _quantity(row)
        found = margin.isolated_liquidation_price(
            quantity,
            _need(row, _ENTRY),
            _isolated_wallet(row, venue),
            _position_schedule(row, venue),
            liquidation_fee_rate=_fee(row, venue),
        )
        if found is None or quantity < 0 or not venue.isolated_long_adds_tick:
            return found
        return found + (_number(row, _TICK) or 0)

    return {"liquidation_price": price}


def cross_liquidation(inputs: Inputs, venue: Venue) -> Outputs:
    row = _with_position(inputs)
    # Equity has the position's own profit up to its mark in it, so the mark stands for the entry.
    equity = _number(row, _EQUITY)
    others = [
        _mapping(f"inputs.other_positions[{index}]", other)
        for index, other in enumerate(
            _items("inputs.other_positions", inputs.get("other_positions") or [])
        )
    ]
    return {
        "liquidation_price": lambda: margin.cross_liquidation_price(
            _quantity(row),
            _need(row, _ENTRY if equity is None else _MARK),
            _need(row, _WALLET) if equity is None else equity,
            _position_schedule(row, venue),
            [
                CrossPosition.of(
                    _quantity(other),
                    _need(other, _ENTRY),
                    _need(other, _MARK),
                    _position_schedule(other, venue),
                    _fee({**inputs, **other}, venue),
                )
                for other in others
            ],
            liquidation_fee_rate=_fee(row, venue),
        )
    }


def _interest(inputs: Inputs) -> float:
    if _find(inputs, ("discount",)) is None:
        return _float(inputs, _INTEREST, 0.0)
    return pricing.rate_of_discount(_float(inputs, ("discount",)), _float(inputs, _TIME))


def _spot_greeks(inputs: Inputs, option_type: str, rate: float) -> pricing.SpotGreeks:
    carry = _find(inputs, _CARRY)
    return pricing.black_scholes(
        option_type,
        _float(inputs, ("spot",)),
        _float(inputs, ("strike",)),
        _float(inputs, _VOLATILITY),
        _float(inputs, _TIME),
        rate,
        dividend_yield=_float(inputs, _YIELD, 0.0) if carry is None else None,
        cost_of_carry=None if carry is None else _float(inputs, _CARRY),
    )


def _figures(greeks: Callable[[], Greeks], inputs: Inputs, venue: Venue) -> Outputs:
    """Return the outputs of one option under all names, each in the unit of its name."""
    point = 1 if venue.greeks_per_point else 100
    day = 1 if venue.greeks_per_point else 365

    def of(name: str, factor: int = 1) -> Callable[[], float]:
        return lambda: factor * getattr(greeks(), name)

    outputs: Outputs = {
        "price": of("price"),
        "mark_price": of("price"),
        "delta": of("delta"),
        "gamma": of("gamma"),
        "vega": of("vega_per_vol_point", point),
        "vega_per_vol_point": of("vega_per_vol_point"),
        "theta": of("theta_per_day", day),
        "theta_per_year": of("theta_per_day", 365),
        "theta_per_day": of("theta_per_day"),
        "rho": of("rho_per_point", 100),
        "rho_per_pct": of("rho_per_point"),
        "rho_per_point": of("rho_per_point"),
    }
    if _find(inputs, ("spot",)) is not None:
        outputs |= {
            "dividend_rho": of("dividend_rho_per_point", 100),
            "delta_forward": of("delta_forward"),
            "elasticity": lambda: pricing.elasticity(_as_spot(greeks()), _float(inputs, ("spot",))),
        }
    if venue.greeks_per_point:
        del outputs["rho"]
    if venue.scales_last_day and _float(inputs, _TIME) < 1 / 365:
        del outputs["gamma"], outputs["theta"], outputs["theta_per_day"]
    return outputs


def _as_spot(greeks: Greeks) -> pricing.SpotGreeks:
    if not isinstance(greeks, pricing.SpotGreeks):
        raise ValueError("inputs.spot is missing")
    return greeks


def black76(inputs: Inputs, venue: Venue) -> Outputs:
    return _figures(
        lambda: pricing.black76(
            _text(inputs, ("option_type",)),
            _float(inputs, ("forward",)),
            _float(inputs, ("strike",)),
            _float(inputs, _VOLATILITY),
            _float(inputs, _TIME),
            _interest(inputs),
        ),
        inputs,
        venue,
    )


def black_scholes(inputs: Inputs, venue: Venue) -> Outputs:
    option_type = _text(inputs, ("option_type",))
    return _figures(lambda: _spot_greeks(inputs, option_type, _interest(inputs)), inputs, venue)


def black_scholes_pair(inputs: Inputs, venue: Venue) -> Outputs:
    """Return the figures of the call and the put of one strike, the common ones without prefix."""
    outputs: Outputs = {}
    for kind in ("call", "put"):

        def greeks(option_type: str = kind) -> Greeks:
            return _spot_greeks(inputs, option_type, _interest(inputs))

        figures = _figures(greeks, inputs, venue)
        outputs |= {f"{kind}_{name}": figure for name, figure in figures.items()}
        outputs[kind] = figures["price"]
        # Gamma and vega are the same of both.
        outputs |= {name: figures[name] for name in figures if name.startswith(("gamma", "vega"))}
    return outputs


def price_by_rate(inputs: Inputs, venue: Venue) -> Outputs:
    option_type = _text(inputs, ("option_type",))

    def prices() -> list[float]:
        rates = _items("inputs.rates_cont", inputs.get("rates_cont"))
        return [
            float(_spot_greeks(inputs, option_type, float(margin.decimal("rate", rate))).price)
            for rate in rates
        ]

    return {**black_scholes(inputs, venue), "prices_by_rate": prices}


_DELTA_TYPES = {
    "spot": DeltaConvention.SPOT,
    "fwd": DeltaConvention.FORWARD,
    "paspot": DeltaConvention.PREMIUM_ADJUSTED_SPOT,
    "pafwd": DeltaConvention.PREMIUM_ADJUSTED_FORWARD,
}


def delta_convention(inputs: Inputs, _venue: Venue) -> Outputs:
    """Discount factors and a total deviation are rates and a volatility over one year."""
    name = _text(inputs, ("delta_type",))
    if name.lower() not in _DELTA_TYPES:
        raise NotCoveredError(f"delta type {name}")

    def delta() -> pricing.Figure:
        return pricing.black_scholes(
            _text(inputs, ("option_type",)),
            _float(inputs, ("spot",)),
            _float(inputs, ("strike",)),
            _float(inputs, ("std_dev",)),
            1.0,
            pricing.rate_of_discount(_float(inputs, ("domestic_df",)), 1.0),
            dividend_yield=pricing.rate_of_discount(_float(inputs, ("foreign_df",)), 1.0),
        ).delta_as(_DELTA_TYPES[name.lower()])

    return {"delta": delta}


Adapter = Callable[[Inputs, Venue], Outputs]

# Margin: the venue's record must name the model. Options: mathematics, the same for every venue.
_MARGIN_MODELS: Mapping[str, Adapter] = {
    "maintenance_tier": maintenance_tier,
    "maintenance_tier_table": maintenance_tier_table,
    "max_leverage_for_stake": max_leverage_for_stake,
    "margin_linear": margin_linear,
    "isolated_liquidation_linear": isolated_liquidation_linear,
    "cross_liquidation": cross_liquidation,
}
_OPTION_MODELS: Mapping[str, Adapter] = {
    "bs_price": black_scholes,
    "greeks": black_scholes,
    "black76_price": black76,
    "black76_greeks": black76,
    "bs_price_greeks": black_scholes_pair,
    "bs_price_cost_of_carry": price_by_rate,
    "greeks_delta_convention": delta_convention,
}


def adapter_of(model: str, venue: Venue) -> Adapter:
    """Return the adapter. Raises NotCoveredError for a rule that is not here."""
    if model in _OPTION_MODELS:
        return _OPTION_MODELS[model]
    if model in _MARGIN_MODELS and model in venue.models:
        return _MARGIN_MODELS[model]
    raise NotCoveredError(model)


@dataclass(frozen=True, slots=True)
class Failure:
    """An output that is out of tolerance, or, with a text instead of a figure, what is wrong."""

    row_id: str
    output: str
    expected: Any
    got: Any

    def line(self) -> str:
        if isinstance(self.got, str):
            return f"FAILED {self.row_id} {self.output}: {self.got}"
        shown = f"expected {_shown(self.expected)}, got {_shown(self.got)}"
        if _is_number(self.expected) and _is_number(self.got):
            difference = float(Decimal(self.got) - Decimal(self.expected))
            shown += f", difference {difference:.6g}"
        return f"FAILED {self.row_id} {self.output}: {shown}"


@dataclass(slots=True)
class Count:
    """Rows of one venue and model."""

    rows: int = 0
    passed: int = 0
    failed: int = 0
    not_covered: int = 0

    def add(self, other: Count) -> None:
        self.rows += other.rows
        self.passed += other.passed
        self.failed += other.failed
        self.not_covered += other.not_covered


@dataclass(slots=True)
class Report:
    """What a run found, groups in order of first appearance."""

    groups: dict[tuple[str, str], Count] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def total(self) -> Count:
        total = Count()
        for count in self.groups.values():
            total.add(count)
        return total

    def table(self) -> str:
        """Return the text table with one line a venue and model, and the total."""
        lines: list[tuple[str, ...]] = [("venue", "model", *Count.__slots__)]
        for (venue, model), count in [*self.groups.items(), (("total", ""), self.total())]:
            lines.append((venue, model, *(str(getattr(count, name)) for name in Count.__slots__)))
        lines[0] = tuple(word.replace("_", " ") for word in lines[0])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        return "\n".join(
            "  ".join(
                text.ljust(width) if column < 2 else text.rjust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        counts = {name: getattr(self.total(), name) for name in Count.__slots__}
        groups = [
            {"venue": venue, "model": model}
            | {name: getattr(count, name) for name in Count.__slots__}
            for (venue, model), count in self.groups.items()
        ]
        failures = [
            {
                "id": failure.row_id,
                "output": failure.output,
                "expected": _plain(failure.expected),
                "got": _plain(failure.got),
            }
            for failure in self.failures
        ]
        return {**counts, "groups": groups, "failures": failures}


def check(lines: Sequence[tuple[str, bytes]]) -> Report:
    """Run rows, given as (place, line); the place names a line that is not a row."""
    report = Report()
    for place, line in lines:
        venue = model = "?"
        try:
            row = _row(line)
            venue, model = row["venue"], row["model"]
            failures = _check_row(row)
        except NotCoveredError:
            outcome = Count(rows=1, not_covered=1)
        except (ValueError, RecursionError) as error:
            outcome = Count(rows=1, failed=1)
            report.failures.append(Failure(place, "row", None, f"{error}"))
        else:
            outcome = Count(rows=1, failed=1) if failures else Count(rows=1, passed=1)
            report.failures += failures
        report.groups.setdefault((venue, model), Count()).add(outcome)
    return report


def _row(line: bytes) -> dict[str, Any]:
    """Return a row whose fields have their types. Raises ValueError, naming the field."""
    row = json.loads(line.decode(), parse_float=Decimal)
    if not isinstance(row, dict):
        raise ValueError("a row must be a JSON object")
    for name in ("id", "venue", "model"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise ValueError(f"{name} must be a text, got {row.get(name)!r}")
    for name in ("inputs", "expected", "tolerance"):
        _mapping(name, row.get(name))
    if not row["expected"]:
        raise ValueError("expected must name at least one output")
    return row


def _check_row(row: Mapping[str, Any]) -> list[Failure]:
    """Return the outputs of one row that are out of tolerance. Raises NotCoveredError."""
    venue = venue_of(row["venue"])
    adapter = adapter_of(row["model"], venue)
    kind = row["tolerance"].get("kind")
    if kind not in ("abs", "rel"):
        raise ValueError(f"tolerance.kind must be abs or rel, got {kind!r}")
    tolerance = margin.decimal("tolerance.value", row["tolerance"].get("value"))
    if tolerance < 0:
        raise ValueError(f"tolerance.value {tolerance} must not be below 0")
    failures: list[Failure] = []
    try:
        outputs = adapter(row["inputs"], venue)
        unknown = [name for name in row["expected"] if name not in outputs]
        if unknown:
            raise NotCoveredError(", ".join(unknown))
        for name, expected in row["expected"].items():
            got = outputs[name]()
            for place, wanted, figure in _pairs(name, expected, got):
                if not _within(place, wanted, figure, tolerance, kind == "rel"):
                    failures.append(Failure(row["id"], place, wanted, figure))
    except (ValueError, ArithmeticError) as error:
        failures.append(Failure(row["id"], "inputs", None, str(error) or type(error).__name__))
    return failures


def _pairs(name: str, expected: Any, got: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each expected figure with its name and what was computed."""
    if not isinstance(expected, list):
        yield name, expected, got
        return
    figures = got if isinstance(got, list) else [got]
    yield f"{name} count", len(expected), len(figures)
    for index, (wanted, figure) in enumerate(zip(expected, figures, strict=False)):
        yield f"{name}[{index}]", wanted, figure


def _within(name: str, expected: Any, got: Any, tolerance: Decimal, relative: bool) -> bool:
    if expected is None or got is None:
        return expected is None and got is None
    if isinstance(got, list):
        return False
    wanted = margin.decimal(f"expected.{name}", expected)
    allowed = tolerance * wanted.copy_abs() if relative else tolerance
    return abs(Decimal(got) - wanted) <= allowed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal)


def _shown(value: Any) -> str:
    return f"{float(value):.17g}" if isinstance(value, float | Decimal) else f"{value}"


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `riskd conform`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="vectors, JSON lines")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(args: argparse.Namespace) -> int:
    """Print the report. Return 0, 1 if a row failed, 2 if a file cannot be read or has no row."""
    lines: list[tuple[str, bytes]] = []
    for path in args.files:
        try:
            content = path.read_bytes()
        except OSError as error:
            print(f"riskd conform: {path}: {error.strerror}", file=sys.stderr)
            return 2
        lines += [
            (f"{path}:{number}", line)
            for number, line in enumerate(content.splitlines(), start=1)
            if line.strip()
        ]
    if not lines:
        print("riskd conform: the files have no rows: nothing was checked", file=sys.stderr)
        return 2
    report = check(lines)
    if args.json:
        print(json.dumps(report.json(), indent=1))
    else:
        for failure in report.failures:
            print(failure.line())
        print(report.table())
    return 1 if report.failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `riskd conform` with these arguments."""
    parser = argparse.ArgumentParser(prog="riskd conform", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
