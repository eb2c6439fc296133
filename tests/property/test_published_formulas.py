"""Venues' published formulas, as they stand on their pages, against the one equation."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from riskd.conform.venues import venue_of
from riskd.margin import (
    Position,
    Rule,
    Tier,
    TierSchedule,
    bankruptcy_price_of,
    liquidation_price_of,
    requirement_of,
)
from riskd.margin.rule import Contract

# The formulas' own divisions have 28 digits.
CLOSE = Decimal("1e-20")


def decimals(low: str, high: str, places: int) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(low), Decimal(high), places=places)


sides = st.sampled_from([1, -1])
sizes = decimals("1", "100000", 0)
entries = decimals("1", "90000", 2)
leverages = decimals("2", "100", 0)
rates = decimals("0.001", "0.05", 3)
fees = decimals("0", "0.002", 4)
amounts = decimals("0", "0.1", 3)


def rule_of(venue: str, contract: Contract) -> Rule:
    """Return the venue's switches; without a tick nothing is rounded."""
    rule = venue_of(venue).rule(contract, "isolated")
    assert rule is not None
    return rule


def flat(rate: Decimal, deduction: Decimal = Decimal(0)) -> TierSchedule:
    return TierSchedule((Tier(Decimal(0), rate, Decimal(0), deduction),))


def same(got: Decimal | None, wanted: Decimal) -> bool:
    return got is not None and abs(got - wanted) <= CLOSE * abs(wanted)


@given(sides, sizes, entries, leverages, rates, fees, amounts, amounts)
def test_bybit_inverse_since_2025(
    side: int,
    n: Decimal,
    entry: Decimal,
    leverage: Decimal,
    m: Decimal,
    f: Decimal,
    extra: Decimal,
    deduction: Decimal,
) -> None:
    """[n (1 +/- m)] / [n/P0 +/- n/(P0 lambda) +/- extra / (1 +/- f) +/- deduction]"""
    # A deduction is far less than the margin that it is taken off.
    value = n / entry
    extra, deduction = extra * value / 10, deduction * value / 100
    below = value + side * (value / leverage + extra / (1 + side * f) + deduction)
    assume(below > value / 100)
    position = Position(
        quantity=side * n,
        entry_price=entry,
        leverage=leverage,
        fee_rate=f,
        added_margin=extra,
    )
    rule = rule_of("Bybit (2026)", "inverse")
    got = liquidation_price_of(position, flat(m, deduction), rule)
    assert same(got, n * (1 + side * m) / below)


@given(sides, sizes, entries, leverages, rates, st.sampled_from(["Bybit", "MEXC"]))
def test_bybit_and_mexc_linear_classic(
    side: int, q: Decimal, entry: Decimal, leverage: Decimal, m: Decimal, venue: str
) -> None:
    """Long P0 (1 - 1/lambda + m), short P0 (1 + 1/lambda - m)."""
    position = Position(quantity=side * q, entry_price=entry, leverage=leverage)
    got = liquidation_price_of(position, flat(m), rule_of(venue, "linear"))
    assert same(got, entry * (1 - side * (1 / leverage - m)))


@given(sides, sizes, entries, leverages, rates, fees, st.sampled_from(["BitMEX", "KuCoin"]))
def test_bitmex_and_kucoin_inverse(
    side: int, n: Decimal, entry: Decimal, leverage: Decimal, m: Decimal, f: Decimal, venue: str
) -> None:
    """liqValue = cost - (posMargin - posMaint), bankruptValue = cost - posInit, price = n / value.

    posMargin = posInit + posComm, posComm = f cost (1 + 1/lambda), posMaint = m cost + posComm;
    cost is negative for a long.
    """
    cost = -side * n / entry
    init, comm = abs(cost) / leverage, abs(cost) * (1 + 1 / leverage) * f
    position = Position(
        quantity=side * n,
        entry_price=entry,
        leverage=leverage,
        fee_rate=f,
        wallet=init + comm,
    )
    rule = rule_of(venue, "inverse")
    liquidation = cost - (init + comm - (m * abs(cost) + comm))
    bankrupt = cost - init
    if -side * liquidation <= 0 or -side * bankrupt <= 0:
        return
    assert same(liquidation_price_of(position, flat(m), rule), n / abs(liquidation))
    assert same(bankruptcy_price_of(position, rule), n / abs(bankrupt))


@given(sides, sizes, entries, entries, rates, amounts)
def test_coinex_linear(
    side: int, q: Decimal, entry: Decimal, mark: Decimal, m: Decimal, share: Decimal
) -> None:
    """LMR = (position margin - profit) / value; long SP (1 - LMR) / (1 - MMR), short with plus."""
    profit = side * q * (mark - entry)
    margin = q * entry * share + profit
    lmr = (margin - profit) / (q * entry)
    position = Position(quantity=side * q, entry_price=entry, mark_price=mark, wallet=margin)
    got = liquidation_price_of(position, flat(m), rule_of("CoinEx", "linear"))
    assert same(got, entry * (1 - side * lmr) / (1 - side * m))


@given(sides, sizes, entries, rates, fees, amounts, st.sampled_from(["OKX", "Gate", "Phemex"]))
def test_fee_at_liquidation(
    side: int, q: Decimal, entry: Decimal, m: Decimal, f: Decimal, share: Decimal, venue: str
) -> None:
    """L = (q P0 -/+ margin) / (q (1 -/+ (m + f)))."""
    margin = q * entry * share
    position = Position(quantity=side * q, entry_price=entry, wallet=margin, fee_rate=f)
    rule = replace(rule_of(venue, "linear"), extra_ticks=0)
    got = liquidation_price_of(position, flat(m), rule)
    assert same(got, (q * entry - side * margin) / (q * (1 - side * (m + f))))


@given(sides, sizes, entries, leverages, rates, fees)
def test_bybit_margins(
    side: int, q: Decimal, entry: Decimal, leverage: Decimal, m: Decimal, f: Decimal
) -> None:
    """fee = value (1 -/+ 1/lambda) taker; IM = value / lambda + fee; MM = value m + fee."""
    position = Position(quantity=side * q, entry_price=entry, leverage=leverage, fee_rate=f)
    needed = requirement_of(position, flat(m), rule_of("Bybit", "linear"))
    value = q * entry
    fee = value * (1 - side / leverage) * f
    assert same(needed.initial, value / leverage + fee)
    assert same(needed.maintenance, value * m + fee)
