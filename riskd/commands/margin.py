"""`riskd margin`: what a position needs and where it ends, without a service."""

import argparse
import sys
from decimal import Decimal, localcontext

from riskd import margin, rulebooks
from riskd.commands.output import print_figures, print_json
from riskd.margin import Rule, TierSchedule
from riskd.numbers import NumberError, decimal_text, parse_decimal
from riskd.rulebooks import InstrumentRule, Rulebook, ScheduleRule, library

EPILOG = """examples:
  riskd margin --side long --quantity 0.5 --entry 65000 --leverage 20 \\
      --rulebook binance_usdm --symbol BTCUSDT
  riskd margin --side short --quantity 3 --entry 2500 --wallet 900 --maintenance-rate 0.01
  riskd margin --side long --quantity 1 --entry 100 --leverage 10 --maintenance-rate 0.005 \\
      --mark 97 --json

The position is linear and isolated. Its wallet is --wallet, or the initial margin at entry. The
rates come from a rulebook or are one flat rate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the position and its rates."""
    parser.description = "Margin, liquidation and bankruptcy price of one isolated position."
    parser.epilog = EPILOG
    parser.add_argument("--side", required=True, choices=("long", "short"))
    parser.add_argument("--quantity", required=True, help="units of the underlying, above 0")
    parser.add_argument("--entry", required=True, metavar="PRICE", help="average entry price")
    parser.add_argument("--mark", metavar="PRICE", help="mark price (default: the entry price)")
    money = parser.add_mutually_exclusive_group(required=True)
    money.add_argument("--leverage", help="the wallet is the initial margin at this leverage")
    money.add_argument("--wallet", metavar="AMOUNT", help="the wallet in quote currency")
    rates = parser.add_mutually_exclusive_group(required=True)
    rates.add_argument("--rulebook", metavar="NAME", help="name or .toml file; needs --symbol")
    rates.add_argument("--maintenance-rate", metavar="RATE", help="one rate at every notional")
    parser.add_argument("--symbol", help="instrument or margin schedule of the rulebook")
    parser.add_argument(
        "--liquidation-fee-rate",
        metavar="RATE",
        help="fee that a liquidation takes (default: the rulebook's, or 0)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the position's figures."""
    try:
        figures = compute(arguments)
    except (ValueError, KeyError) as error:
        print(f"riskd margin: {error.args[0]}", file=sys.stderr)
        return 1
    if arguments.json:
        print_json(figures)
    else:
        print_figures(figures)
    return 0


def compute(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Return names and values of the figures. Raises ValueError, naming the field."""
    quantity = _above_zero(arguments.quantity, "quantity")
    entry = _above_zero(arguments.entry, "entry")
    mark = _above_zero(arguments.mark, "mark") if arguments.mark else entry
    schedule, fee = _rates(arguments)
    if arguments.liquidation_fee_rate is not None:
        fee = _number(arguments.liquidation_fee_rate, "liquidation-fee-rate")
    value = margin.notional(quantity, entry)
    if arguments.wallet is not None:
        wallet = _number(arguments.wallet, "wallet")
    else:
        wallet = margin.initial_margin(
            value, _leverage(arguments.leverage, value, schedule), schedule
        )
    signed = quantity if arguments.side == "long" else -quantity
    profit = margin.unrealised_pnl(signed, entry, mark)
    notional = margin.notional(quantity, mark)
    requirement = margin.maintenance_margin(notional, schedule, liquidation_fee_rate=fee)
    liquidation = margin.isolated_liquidation_price(
        signed, entry, wallet, schedule, liquidation_fee_rate=fee
    )
    bankruptcy = margin.bankruptcy_price(signed, entry, wallet)
    with localcontext(prec=100):
        equity = wallet + profit
        figures = [
            ("entry value", _text(value)),
            ("notional at mark", _text(notional)),
            ("wallet", _text(wallet)),
            ("unrealised pnl", _text(profit)),
            ("equity", _text(equity)),
            ("maintenance margin", _text(requirement)),
            ("liquidatable", "yes" if equity <= requirement else "no"),
            ("liquidation price", "none" if liquidation is None else _text(liquidation)),
            ("bankruptcy price", "none" if bankruptcy is None else _text(bankruptcy)),
        ]
        if liquidation is not None:
            distance = abs(mark - liquidation) / mark
            figures.append(("distance to liquidation", f"{distance:.4%}"))
    return figures


def _rates(arguments: argparse.Namespace) -> tuple[TierSchedule, Decimal]:
    """Return the tiers and the liquidation fee rate."""
    if arguments.maintenance_rate is not None:
        rate = _above_zero(arguments.maintenance_rate, "maintenance-rate")
        return TierSchedule.flat(rate), Decimal(0)
    if arguments.symbol is None:
        raise ValueError("--rulebook needs --symbol")
    book = rulebooks.load(arguments.rulebook)
    by_symbol = {rule.symbol: rule for rule in book.instruments}
    name = arguments.symbol
    if name in by_symbol:
        name = by_symbol[name].margin_schedule
        if not name:
            raise ValueError(f"{arguments.symbol} is an option: its premium is paid in full")
    rule = book.schedule(name)
    _refuse_others(book, by_symbol.get(arguments.symbol), rule)
    schedule = library.margin_schedule(rule)
    assert isinstance(schedule, TierSchedule), "other families are refused above"
    return schedule, rule.liquidation_fee_rate


def _refuse_others(
    book: Rulebook, instrument: InstrumentRule | None, schedule: ScheduleRule
) -> None:
    """Refuse what the figures below would be wrong for, by its key."""
    found: list[tuple[str, object]] = []
    if instrument is not None and (
        instrument.is_inverse or instrument.contract_multiplier != Decimal(1)
    ):
        found.append(("kind", instrument.kind))
    if not schedule.tiers:
        found.append(("family", schedule.family))
    if schedule.tiers and schedule.tier_mode != "marginal":
        found.append(("tier_mode", schedule.tier_mode))
    rule = Rule() if book.rule is None else book.rule.of("isolated")
    for key in ("contract", "initial_basis", "maintenance_basis", "fee_in_margin"):
        value = getattr(rule, key)
        if value not in (getattr(Rule(), key), "liquidation"):
            found.append((key, value))
    if rule.fee_in_liquidation not in ("none", "at_liquidation"):
        found.append(("fee_in_liquidation", rule.fee_in_liquidation))
    if found:
        key, value = found[0]
        raise ValueError(
            f"rulebook {book.name}: {key} is {value}: riskd margin computes linear contracts with"
            " marginal tiers at the mark; riskd.margin has the others"
        )


def _leverage(text: str, value: Decimal, schedule: TierSchedule) -> Decimal:
    """Return the leverage if the tier of the position allows it."""
    leverage = _number(text, "leverage")
    allowed = margin.tier_at(schedule, value).max_leverage
    if leverage < 1 or (allowed is not None and leverage > allowed):
        bound = "at least 1" if allowed is None else f"1 to {allowed} at notional {_text(value)}"
        raise ValueError(f"leverage is {text}: must be {bound}")
    return leverage


def _number(text: str, field: str) -> Decimal:
    mantissa, exponent = parse_decimal(text, field)
    return Decimal(decimal_text(mantissa, exponent))


def _above_zero(text: str, field: str) -> Decimal:
    number = _number(text, field)
    if number <= 0:
        raise NumberError(field, text, "must be above 0")
    return number


def _text(value: Decimal) -> str:
    """Return a figure in plain notation, to 12 decimals."""
    shown = f"{value:.12f}".rstrip("0").rstrip(".")
    return shown if shown not in ("-0", "") else "0"
