"""Margin of perpetuals and futures: requirements, tiers, liquidation and bankruptcy prices.

A row's inputs become a Position, a schedule and the venue's Rule; the library does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from riskd import margin
from riskd.conform.inputs import (
    ADDED_MARGIN,
    CEILING,
    CLOSING_FEE,
    CONTRACT_SIZE,
    CONTRACTS,
    DEDUCTION,
    ENTRY,
    ENTRY_VALUE,
    EQUITY,
    FEE,
    FIRST_MARGIN,
    FLOOR,
    FROZEN_MAINTENANCE,
    INITIAL_RATE,
    LEVERAGE,
    MARGIN_RATE,
    MARGIN_RATIO,
    MARK,
    MARK_VALUE,
    MAX_LEVERAGE,
    NOTIONAL,
    OWN_MARGIN,
    PROFIT,
    QUANTITY,
    RATE,
    SESSION,
    STAKE,
    TICK,
    UNITS,
    WALLET,
    Inputs,
    NotCoveredError,
    Outputs,
    find,
    items,
    mapping,
    need,
    number,
    side_sign,
    spelled,
    with_position,
    without_units,
)
from riskd.conform.venues import Venue
from riskd.margin import (
    Held,
    Position,
    Rule,
    Schedule,
    SizeLinear,
    Tier,
    TierSchedule,
)
from riskd.margin.rule import Contract


@dataclass(frozen=True, slots=True)
class Question:
    """What the library is asked about a row."""

    position: Position
    schedule: Schedule
    rule: Rule
    others: tuple[Held, ...] = ()
    has_rate: bool = True

    def rated(self) -> Schedule:
        """Return the schedule. Raises ValueError if the row states no maintenance rate."""
        if not self.has_rate:
            raise ValueError(f"inputs.{RATE[0]} is missing")
        return self.schedule


def _rule(venue: Venue, contract: Contract, mode: str = "isolated") -> Rule:
    rule = venue.rule(contract, mode)
    if rule is None:
        raise NotCoveredError(f"no rule for {contract} contracts")
    return rule


def _rate(inputs: Inputs, venue: Venue) -> Decimal:
    leverage = number(inputs, MAX_LEVERAGE)
    part = venue.maintenance_of_initial
    if number(inputs, RATE) is None and part is not None and leverage is not None:
        return margin.maintenance_rate_of_leverage(leverage, part)
    return margin.round_rate_up(need(inputs, RATE))


def _states_rate(inputs: Inputs, venue: Venue) -> bool:
    """Whether a row states a maintenance rate, or what the venue derives it from."""
    names = RATE if venue.maintenance_of_initial is None else (*RATE, *MAX_LEVERAGE)
    return inputs.get("tiers") is not None or number(inputs, names) is not None


def schedule_of(inputs: Inputs, venue: Venue, *, rate_needed: bool = True) -> TierSchedule:
    """Return the tiers of a row, or its one rate and amount."""
    if inputs.get("tiers") is None:
        tier = Tier.of(
            0,
            _rate(inputs, venue) if rate_needed or _states_rate(inputs, venue) else 0,
            initial_rate=number(inputs, INITIAL_RATE) or 0,
            deduction=number(inputs, DEDUCTION) or 0,
        )
        return TierSchedule((tier,))
    tiers: list[Tier] = []
    ceiling: Decimal | None = None
    for index, item in enumerate(items("inputs.tiers", inputs["tiers"])):
        row = without_units(mapping(f"inputs.tiers[{index}]", item))
        begin = number(row, FLOOR)
        if ceiling is None:
            floor = need(row, FLOOR) if index else begin or Decimal(0)
        elif begin is None or 0 <= begin - ceiling <= 1:
            # Where sizes are whole numbers the next tier may begin at the ceiling and one.
            floor = ceiling
        else:
            raise ValueError(
                f"inputs.tiers[{index}] begins at {begin}, the tier below ends at {ceiling}"
            )
        tiers.append(
            Tier.of(
                floor,
                _rate(row, venue),
                initial_rate=number(row, INITIAL_RATE) or 0,
                deduction=number(row, DEDUCTION),
                max_leverage=number(row, MAX_LEVERAGE),
            )
        )
        ceiling = number(row, CEILING)
    return TierSchedule(tuple(tiers), ceiling)


def position_of(inputs: Inputs, **figures: Decimal | None) -> Position:
    """Return the position of a row; figures that the caller knows better go before its own."""
    sign = side_sign(inputs)
    size = number(inputs, (*QUANTITY, *CONTRACTS))
    value = number(inputs, NOTIONAL)
    entry_value, mark_value = number(inputs, ENTRY_VALUE), number(inputs, MARK_VALUE)
    entry = number(inputs, (*ENTRY, *MARK))
    mark = number(inputs, MARK)
    leverage = number(inputs, LEVERAGE)
    rate = number(inputs, MARGIN_RATE)
    if size is None:
        # What states a value, or margin as a part of it, need not say of how many; then it is one.
        stated = (value, entry_value, mark_value, rate)
        size = Decimal(1) if any(figure is not None for figure in stated) else _no_size(inputs)
    if entry is None and value is None and entry_value is None and mark_value is None:
        need(inputs, ENTRY)
    if entry is None:
        # A row that states one price or value means it for both.
        entry_value = next((v for v in (entry_value, value, mark_value) if v is not None), None)
        mark_value = next((v for v in (mark_value, value, entry_value) if v is not None), None)
    given: dict[str, Decimal | None] = {
        "quantity": size if sign is None else size.copy_abs() * sign,
        "entry_price": entry,
        "mark_price": entry if mark is None else mark,
        "entry_value": entry_value,
        "mark_value": mark_value,
        "leverage": margin.leverage_of_rate(rate) if leverage is None and rate else leverage,
        "fee_rate": number(inputs, FEE),
        "multiplier": number(inputs, CONTRACT_SIZE),
        "session_price": number(inputs, SESSION),
        "closing_fee": number(inputs, CLOSING_FEE),
        "frozen_maintenance": number(inputs, FROZEN_MAINTENANCE),
        "added_margin": number(inputs, ADDED_MARGIN),
        "open_loss": number(inputs, ("unrealised_loss_locked", "open_loss")),
        "tick": number(inputs, TICK),
    }
    return Position.of(**(given | figures))


def _no_size(inputs: Inputs) -> Decimal:
    return need(inputs, QUANTITY)


# The price whose value a row says that margin is of.
_BASES = {"session": SESSION, "mark": MARK, "entry": ENTRY}


def _stated_value(inputs: Inputs, rule: Rule) -> tuple[Position, Rule]:
    """Return the position of a row; a value that it states is on the venue's own basis."""
    value = number(inputs, NOTIONAL)
    figures: dict[str, Decimal | None] = {}
    if value is not None:
        figures = {
            "entry_value": number(inputs, (*ENTRY_VALUE, *NOTIONAL)),
            "mark_value": number(inputs, (*MARK_VALUE, *NOTIONAL)),
        }
    basis = str(inputs.get("value_basis") or "").lower()
    named = next((names for word, names in _BASES.items() if basis.startswith(word)), None)
    if value is None and named is not None:
        price = need(inputs, named)
        figures = {"entry_price": price, "mark_price": price}
    if rule.maintenance_basis == "session_average" and value is not None:
        rule = replace(rule, maintenance_basis="mark")
    return position_of(inputs, **figures), rule


def _held(inputs: Inputs, venue: Venue, rule: Rule) -> tuple[Held, ...]:
    symbol = inputs.get("symbol")
    rows = items("inputs.other_positions", inputs.get("other_positions") or [])
    shared = {name: inputs[name] for name in FEE if name in inputs}
    held = []
    for index, item in enumerate(rows):
        row = shared | dict(without_units(mapping(f"inputs.other_positions[{index}]", item)))
        pair = symbol is not None and row.get("symbol") == symbol
        held.append(Held(position_of(row), schedule_of(row, venue), rule, same_instrument=pair))
    return tuple(held)


def _isolated(inputs: Inputs, venue: Venue, contract: Contract) -> Question:
    rule = _rule(venue, contract)
    own = number(inputs, OWN_MARGIN)
    wallet = number(inputs, WALLET if own is not None else (*WALLET, *FIRST_MARGIN))
    figures: dict[str, Decimal | None] = {}
    if wallet is not None:
        figures["wallet"] = wallet
        # These names are those of money without the profit, whatever the venue calls margin.
        rule = replace(rule, wallet="margin")
    elif own is not None:
        figures["wallet"] = own
    if rule.initial_basis == "entry":
        figures["entry_value"] = number(inputs, (*ENTRY_VALUE, *NOTIONAL))
    figures["unrealised_profit"] = number(inputs, PROFIT)
    if rule.fee_in_liquidation.startswith("at_"):
        figures["fee_rate"] = need(inputs, FEE)
    if contract == "inverse":
        figures["value_step"] = venue.value_step
    schedule = schedule_of(inputs, venue, rate_needed=False)
    has_rate = number(inputs, FROZEN_MAINTENANCE) is not None or _states_rate(inputs, venue)
    return Question(position_of(inputs, **figures), schedule, rule, has_rate=has_rate)


def _cross(inputs: Inputs, venue: Venue, contract: Contract) -> Question:
    rule = _rule(venue, contract, "cross")
    equity = number(inputs, EQUITY)
    ratio = number(inputs, MARGIN_RATIO)
    if equity is None and ratio is not None and number(inputs, (*WALLET, *OWN_MARGIN)) is None:
        schedule = schedule_of(inputs, venue)
        equity = margin.equity_of_ratio(ratio, position_of(inputs), schedule, rule)
    wallet = need(inputs, (*WALLET, *OWN_MARGIN)) if equity is None else equity
    # Equity has the position's own profit up to its mark in it.
    rule = replace(rule, wallet="margin" if equity is None else "equity")
    tick = number(inputs, TICK)
    if tick is None and contract == "inverse":
        tick = venue.inverse_cross_tick
    fee = need(inputs, FEE) if rule.fee_in_liquidation.startswith("at_") else number(inputs, FEE)
    position = position_of(inputs, wallet=wallet, tick=tick, fee_rate=fee)
    others = _held(inputs, venue, replace(rule, wallet="margin"))
    schedule = schedule_of(inputs, venue, rate_needed=False)
    return Question(position, schedule, rule, others, _states_rate(inputs, venue))


# A size in quote currency is that of an inverse contract, and its money is coin.
_QUOTE_SIZES = ("contracts_usd", "face_usd", "face_value_usd", "ct_val_usd", "contract_size_usd")
_COIN_MONEY = tuple(
    f"{name}_{unit}" for name in (*WALLET, *OWN_MARGIN, *EQUITY) for unit in ("coin", "btc", "xbt")
)
# ETH-USD-SWAP, BTC-USD-230929, BTCUSD_PERP, BTCUSD_230929: settled in coin at OKX and Binance.
_INVERSE_NAME = re.compile(r"[A-Z0-9]+(-USD(-|$)|USD_(PERP|\d{6})$)")


def _contract(model: str, inputs: Inputs) -> Contract:
    """Return what the model's name says, else what the row's words, units and symbol do."""
    if model.endswith(("linear", "inverse")):
        return "inverse" if model.endswith("inverse") else "linear"
    said = str(find(inputs, ("contract", "contract_type", "settlement", "type")) or "").lower()
    if said.startswith(("linear", "inverse", "coin")):
        return "linear" if said.startswith("linear") else "inverse"
    symbol = str(find(inputs, ("instrument", "inst_id", "symbol")) or "")
    is_inverse = inputs.get("inverse") is True or _INVERSE_NAME.match(symbol) is not None
    coin = find(inputs, (*_QUOTE_SIZES, *_COIN_MONEY)) is not None
    return "inverse" if is_inverse or coin else "linear"


def liquidation_question(model: str, inputs: Inputs, venue: Venue) -> Question:
    """Return what a row of a liquidation model asks."""
    row = without_units(with_position(spelled(inputs)))
    contract = _contract(model, row)
    return (_cross if model.startswith("cross") else _isolated)(row, venue, contract)


def _liquidation(model: str) -> Callable[[Inputs, Venue], Outputs]:
    def adapter(inputs: Inputs, venue: Venue) -> Outputs:
        asked = liquidation_question(model, inputs, venue)
        position, rule = asked.position, asked.rule

        def requirement() -> margin.Requirement:
            # What a liquidation row shows is of the entry value, without fees beside it.
            at_entry = replace(position, mark_price=position.entry_price, mark_value=None)
            plain = replace(rule, fee_in_margin="none")
            return margin.requirement_of(at_entry, asked.schedule, plain)

        def initial() -> Decimal:
            _need_leverage(without_units(with_position(inputs)), position)
            return requirement().initial

        def maintenance() -> Decimal:
            asked.rated()
            return requirement().maintenance

        def wallet() -> Decimal:
            return need(without_units(with_position(inputs)), (*WALLET, *OWN_MARGIN, *EQUITY))

        outputs: Outputs = {
            "liquidation_price": lambda: margin.liquidation_price_of(
                position, asked.rated(), rule, asked.others
            ),
            "bankruptcy_price": lambda: margin.bankruptcy_price_of(position, rule),
            "worst_close_price": lambda: margin.bankruptcy_price_of(
                position,
                replace(rule, fee_in_bankruptcy=True, bankruptcy_rounding="against_account"),
            ),
            "closing_fee": lambda: margin.closing_fee_of(position, rule, venue.fee_step),
            "pos_comm": lambda: margin.reserved_fee_of(position, rule),
            "margin_ratio": lambda: margin.margin_ratio_of(position, asked.rated(), rule),
            "position_value": lambda: requirement().notional,
            "notional": lambda: requirement().notional,
            "initial_margin": initial,
            "maintenance_margin": maintenance,
            "available": lambda: margin.available_margin(wallet(), initial()),
            "unrealised_pnl": lambda: margin.profit_of(position, rule),
        }
        return _in_units(outputs, position, rule)

    return adapter


def _margin(contract: Contract) -> Callable[[Inputs, Venue], Outputs]:
    def adapter(inputs: Inputs, venue: Venue) -> Outputs:
        row = without_units(with_position(inputs))
        position, rule = _stated_value(row, _rule(venue, contract))
        return _requirements(row, venue, position, rule)

    return adapter


def margin_linear_leveraged(inputs: Inputs, venue: Venue) -> Outputs:
    row = without_units(with_position(inputs))
    position, rule = _stated_value(row, _rule(venue, "linear"))
    return _requirements(row, venue, position, rule)


def _need_leverage(row: Inputs, position: Position) -> None:
    """Raise ValueError if nothing in a row says what initial margin is."""
    if position.leverage is None and number(row, INITIAL_RATE) is None and not row.get("tiers"):
        raise ValueError(f"inputs.{LEVERAGE[0]} is missing")


def _requirements(row: Inputs, venue: Venue, position: Position, rule: Rule) -> Outputs:
    if number(row, ("rate",)) is not None:
        # One rate for the requirement that is asked for, divided by the leverage.
        rate = need(row, ("rate",))
        # The standard model of an engine that has both leaves the leverage out.
        standard = str(row.get("mode") or "").startswith("standard")
        schedule = margin.leveraged_rates(rate, rate, 1 if standard else position.leverage or 1)
        position = replace(position, leverage=None)
    else:
        schedule = schedule_of(row, venue, rate_needed=False)

    def requirement() -> margin.Requirement:
        return margin.requirement_of(position, schedule, rule)

    def initial() -> Decimal:
        if number(row, ("rate",)) is None:
            _need_leverage(row, position)
        return requirement().initial

    def maintenance() -> Decimal:
        if number(row, ("rate",)) is None and not _states_rate(row, venue):
            raise ValueError(f"inputs.{RATE[0]} is missing")
        return requirement().maintenance

    def ratio() -> Decimal:
        equity = number(row, EQUITY)
        money = need(row, (*WALLET, *OWN_MARGIN)) if equity is None else equity
        held = replace(rule, wallet="margin" if equity is None else "equity")
        return margin.margin_ratio_of(replace(position, wallet=money), schedule, held)

    outputs: Outputs = {
        "margin_ratio": ratio,
        "notional": lambda: requirement().notional,
        "position_value": lambda: requirement().notional,
        "initial_margin": initial,
        "maintenance_margin": maintenance,
        "margin": initial,
        "position_margin": initial,
        "position_balance": initial,
        "unrealised_pnl": lambda: margin.profit_of(position, rule),
    }
    return _in_units(outputs, position, rule)


def _size_function(initial: bool) -> Callable[[Inputs, Venue], Outputs]:
    def adapter(inputs: Inputs, venue: Venue) -> Outputs:
        row = without_units(with_position(inputs))
        base = need(row, ("base_rate", "base"))
        slope = need(row, ("rate_per_coin", "slope", "rate_per_contract"))
        schedule = SizeLinear(base, slope, base, slope)
        rule = replace(_rule(venue, "linear"), contract="linear")
        position = position_of(row)
        rates = margin.rates_of(schedule, position.quantity, 0)

        def amount() -> Decimal:
            requirement = margin.requirement_of(position, schedule, rule)
            return requirement.initial if initial else requirement.maintenance

        return {
            "rate": lambda: rates.initial_rate if initial else rates.maintenance_rate,
            "margin_usd": amount,
            "margin_quote": amount,
            "margin": amount,
            "margin_coin": lambda: margin.coin_of_quote(amount(), need(row, ENTRY)),
        }

    return adapter


def maintenance_tier(inputs: Inputs, venue: Venue) -> Outputs:
    row = without_units(with_position(inputs))
    rule = _rule(venue, "linear")
    schedule = schedule_of(row, venue)

    def rates() -> margin.Rates:
        by_quantity = rule.tier_key == "quantity"
        size = need(row, (*QUANTITY, *CONTRACTS)).copy_abs() if by_quantity else Decimal(1)
        value = Decimal(0) if by_quantity else notional()
        return margin.rates_of(schedule, size, value, rule, floor_is_in=venue.floor_is_in)

    def notional() -> Decimal:
        value = number(row, (*NOTIONAL, *MARK_VALUE))
        if value is not None:
            return value.copy_abs()
        position, shown = _stated_value(row, rule)
        return margin.requirement_of(position, schedule, shown).notional

    def maintenance() -> Decimal:
        position, shown = _stated_value(row, rule)
        plain = replace(shown, fee_in_margin="none", maintenance_basis="mark")
        return margin.requirement_of(position, schedule, plain).maintenance

    outputs: Outputs = {
        "notional": notional,
        "mmr": lambda: rates().maintenance_rate,
        "maint_amount": lambda: None if rule.tier_mode == "whole" else rates().deduction,
        "maintenance_margin": maintenance,
    }
    outputs |= _noted_deduction(inputs)
    return outputs | {f"{name}_{unit}": outputs[name] for name in outputs for unit in UNITS}


# "amount_5 = 50*(5%-2.5%)+0.56": the deduction of a tier from its floor and the one below.
_NOTED = re.compile(
    r"amount_(\d+)\s*=\s*([\d.,]+)\s*\*\s*\(\s*([\d.]+)%\s*-\s*([\d.]+)%\s*\)\s*\+\s*([\d.,]+)"
)


def _noted_deduction(inputs: Inputs) -> Outputs:
    note = inputs.get("tiers_note")
    found = _NOTED.search(note) if isinstance(note, str) else None
    if found is None:
        return {}
    tier, floor, rate, rate_below, below = (text.replace(",", "") for text in found.groups())
    percent = Decimal("0.01")
    return {
        f"maint_amount_tier{tier}": lambda: margin.next_deduction(
            below, floor, Decimal(rate_below) * percent, Decimal(rate) * percent
        )
    }


def maintenance_tier_table(inputs: Inputs, venue: Venue) -> Outputs:
    _rule(venue, "linear")
    return {"cum": lambda: list(margin.deductions(schedule_of(inputs, venue)))}


def max_leverage_for_stake(inputs: Inputs, venue: Venue) -> Outputs:
    _rule(venue, "linear")
    return {
        "max_leverage": lambda: margin.max_leverage_for_stake(
            need(inputs, STAKE), schedule_of(inputs, venue)
        )
    }


def _in_units(outputs: Outputs, position: Position, rule: Rule) -> Outputs:
    """Return the outputs with and without the unit of money in their names."""
    price = position.mark_price or position.entry_price

    def quoted(figure: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: margin.quote_of_coin(figure(), price or 0)

    named = dict(outputs)
    for name, figure in outputs.items():
        for unit in UNITS:
            converted = rule.contract == "inverse" and unit in ("usd", "usdt", "usdc", "quote")
            named[f"{name}_{unit}"] = quoted(figure) if converted else figure
    return named


MODELS: Mapping[str, Callable[[Inputs, Venue], Outputs]] = {
    "maintenance_tier": maintenance_tier,
    "maintenance_tier_table": maintenance_tier_table,
    "max_leverage_for_stake": max_leverage_for_stake,
    "margin_linear": _margin("linear"),
    "margin_inverse": _margin("inverse"),
    "margin_linear_leveraged": margin_linear_leveraged,
    "initial_margin_size_function": _size_function(initial=True),
    "maintenance_margin_size_function": _size_function(initial=False),
} | {
    model: _liquidation(model)
    for model in (
        "isolated_liquidation",
        "isolated_liquidation_linear",
        "isolated_liquidation_inverse",
        "cross_liquidation",
        "cross_liquidation_linear",
        "cross_liquidation_inverse",
    )
}
