"""`riskd margin`: what a position needs and where it ends, without a service."""

import argparse
import sys
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from riskd import margin, rulebooks
from riskd.commands.output import print_figures, print_json
from riskd.margin import Position, Rule, TierSchedule
from riskd.margin.schedules import Schedule
from riskd.numbers import NumberError, decimal_text, parse_decimal
from riskd.rulebooks import InstrumentRule, ParameterRule, Rulebook, ScheduleRule, library
from riskd.rulebooks.schema import INVERSE_OPTION, number_of

EPILOG = """examples:
  riskd margin --side long --quantity 0.5 --entry 65000 --leverage 20 \\
      --rulebook binance_usdm --symbol BTCUSDT
  riskd margin --side short --quantity 3 --entry 2500 --wallet 900 --maintenance-rate 0.01
  riskd margin --side long --quantity 10000 --entry 65000 --leverage 10 --mark 62000 \\
      --rulebook kraken --symbol PI_XBTUSD --json
  riskd margin --side short --quantity 2 --entry 0.02 --rulebook deribit --symbol BTC \\
      --option-type put --strike 60000 --underlying 65000

One position by itself. The rates and the rule are those of a rulebook's instrument, margin schedule
or option rule, or one flat rate; prices are rounded as the rule says where the tick is known. The
wallet is the money behind the position without its profit: --wallet, or the initial margin at
entry. Of an option, entry and mark are its own prices."""

DAYS_PER_YEAR = 365

# What an option has, and a contract has not.
_OPTION_ARGUMENTS = ("option_type", "strike", "underlying")
_CONTRACT_ARGUMENTS = (
    "leverage",
    "wallet",
    "liquidation_fee_rate",
    "taker_fee_rate",
    "open_interest",
    "volatility",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the position and its rates."""
    parser.description = "Margin, liquidation and bankruptcy price of one position."
    parser.epilog = EPILOG
    parser.add_argument("--side", required=True, choices=("long", "short"))
    parser.add_argument(
        "--quantity",
        required=True,
        help="above 0: units of the underlying, of inverse contracts of quote currency",
    )
    parser.add_argument("--entry", required=True, metavar="PRICE", help="average entry price")
    parser.add_argument("--mark", metavar="PRICE", help="mark price (default: the entry price)")
    money = parser.add_mutually_exclusive_group()
    money.add_argument("--leverage", help="the wallet is the initial margin at this leverage")
    money.add_argument("--wallet", metavar="AMOUNT", help="the wallet in the settlement asset")
    rates = parser.add_mutually_exclusive_group(required=True)
    rates.add_argument("--rulebook", metavar="NAME", help="name or .toml file; needs --symbol")
    rates.add_argument("--maintenance-rate", metavar="RATE", help="one rate at every notional")
    parser.add_argument(
        "--symbol", help="instrument, margin schedule or option rule of the rulebook"
    )
    parser.add_argument("--margin-mode", choices=("isolated", "cross"), default="isolated")
    parser.add_argument(
        "--liquidation-fee-rate",
        metavar="RATE",
        help="fee that a liquidation takes (default: the rulebook's, or 0)",
    )
    parser.add_argument(
        "--taker-fee-rate",
        metavar="RATE",
        help="fee that a rule puts aside for closing (default: the instrument's, or 0)",
    )
    parser.add_argument(
        "--open-interest", metavar="NOTIONAL", help="of the market, where rates grow with it"
    )
    parser.add_argument(
        "--volatility",
        metavar="RATE",
        help="a year's, 0.5 is 50%%: shows the distance to liquidation in standard deviations of a"
        " day too",
    )
    parser.add_argument("--option-type", choices=("call", "put"), help="of an option rule")
    parser.add_argument("--strike", metavar="PRICE", help="of an option rule")
    parser.add_argument(
        "--underlying", metavar="PRICE", help="of an option: price of what it is on"
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
    """Return names and values of the figures. Raises ValueError or KeyError, naming the field."""
    book = rulebooks.load(arguments.rulebook) if arguments.rulebook else None
    if book is not None and arguments.symbol is None:
        raise ValueError("--rulebook needs --symbol")
    if book is None and arguments.symbol is not None:
        raise ValueError("--symbol needs --rulebook")
    if book is not None:
        instrument = next((x for x in book.instruments if x.symbol == arguments.symbol), None)
        rule = _option_rule(book, instrument, arguments.symbol)
        if rule is not None or (instrument is not None and instrument.is_option):
            return _option_figures(arguments, instrument, rule)
        if instrument is not None and not instrument.is_contract:
            raise ValueError(
                f"{instrument.symbol} is a spot pair: it is paid in full, not margined"
            )
    for name in _OPTION_ARGUMENTS:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is of options")
    return _contract_figures(arguments, _terms(arguments, book))


# --- contracts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Terms:
    """By what a contract is margined."""

    schedule: Schedule
    rule: Rule
    fee_rate: Decimal
    max_leverage: Decimal | None = None
    """None: no bound but the schedule's own rate."""
    multiplier: Decimal = Decimal(1)
    tick: Decimal | None = None


def _contract_figures(arguments: argparse.Namespace, terms: _Terms) -> list[tuple[str, str]]:
    entry = _above_zero(arguments.entry, "entry")
    mark = _above_zero(arguments.mark, "mark") if arguments.mark else entry
    leverage = _leverage(arguments.leverage, terms.max_leverage)
    rule, schedule = terms.rule, terms.schedule
    position = Position.of(
        quantity=_signed(arguments),
        entry_price=entry,
        mark_price=mark,
        leverage=leverage,
        fee_rate=terms.fee_rate,
        multiplier=terms.multiplier,
        tick=terms.tick,
        open_interest=_number(arguments.open_interest or "0", "open-interest"),
    )
    profit = margin.profit_of(position, rule)
    wallet = _wallet(arguments, position, terms)
    with localcontext(prec=100):
        has_profit = rule.wallet in ("margin_and_profit", "equity")
        position = replace(position, wallet=wallet + profit if has_profit else wallet)
        equity = wallet + profit
    need = margin.requirement_of(position, schedule, rule)
    try:
        is_liquidatable = margin.margin_ratio_of(position, schedule, rule) <= 1
    except ValueError:  # It needs nothing.
        is_liquidatable = equity <= 0
    liquidation = margin.liquidation_price_of(position, schedule, rule)
    bankruptcy = margin.bankruptcy_price_of(position, rule)
    figures = [
        ("entry value", _text(margin.value_of(position, entry, rule))),
        ("notional at mark", _text(margin.value_of(position, mark, rule))),
        ("initial margin", _text(need.initial)),
        ("wallet", _text(wallet)),
        ("unrealised pnl", _text(profit)),
        ("equity", _text(equity)),
        ("maintenance margin", _text(need.maintenance)),
        ("liquidatable", "yes" if is_liquidatable else "no"),
        ("liquidation price", _price_text(liquidation)),
        ("bankruptcy price", _price_text(bankruptcy)),
    ]
    return figures + _distances(arguments, mark, liquidation, is_liquidatable=is_liquidatable)


def _distances(
    arguments: argparse.Namespace, mark: Decimal, price: Decimal | None, *, is_liquidatable: bool
) -> list[tuple[str, str]]:
    """Return the way from the mark to the liquidation price, where there is one."""
    volatility = None
    if arguments.volatility is not None:
        volatility = _above_zero(arguments.volatility, "volatility")
    if price is None or not price.is_finite() or price <= 0:
        return []
    with localcontext(prec=100):
        distance = Decimal(0) if is_liquidatable else abs(mark - price) / mark
        shown = [("distance to liquidation", f"{distance:.4%}")]
        if volatility is not None:
            deviations = distance / (volatility / Decimal(DAYS_PER_YEAR).sqrt())
            shown.append(("distance in daily volatilities", _text(deviations)))
    return shown


def _wallet(arguments: argparse.Namespace, position: Position, terms: _Terms) -> Decimal:
    """Return the money behind the position, with a fee that the rule keeps in it."""
    if arguments.wallet is not None:
        wallet = _number(arguments.wallet, "wallet")
        # The fee that is put aside depends on the leverage, which a wallet does not tell.
        if terms.fee_rate and terms.rule.fee_in_liquidation in ("reserved", "at_bankruptcy"):
            raise ValueError("--wallet: the rule puts a fee aside by the leverage: give --leverage")
        return wallet
    if arguments.leverage is None:
        raise ValueError("one of --leverage and --wallet is needed")
    # At entry, without the fees: what was paid for the position.
    bare = replace(terms.rule, fee_in_margin="none", initial_basis="entry")
    at_entry = replace(position, mark_price=position.entry_price)
    wallet = margin.requirement_of(at_entry, terms.schedule, bare).initial
    if terms.rule.wallet == "margin_and_fee":
        with localcontext(prec=100):
            wallet += margin.reserved_fee_of(position, terms.rule)
    return wallet


def _terms(arguments: argparse.Namespace, book: Rulebook | None) -> _Terms:
    given = arguments.liquidation_fee_rate
    fee = None if given is None else _number(given, "liquidation-fee-rate")
    if book is None:
        rate = _above_zero(arguments.maintenance_rate, "maintenance-rate")
        rule = Rule(fee_in_liquidation="at_liquidation" if fee else "none")
        return _Terms(TierSchedule.flat(rate), rule, fee or Decimal(0))
    symbol = arguments.symbol
    instrument = next((each for each in book.instruments if each.symbol == symbol), None)
    schedule = book.schedule(instrument.margin_schedule if instrument else symbol)
    if instrument is not None:
        rule = book.margin_rule(symbol, arguments.margin_mode)
    else:
        rule = Rule() if book.rule is None else book.rule.of(arguments.margin_mode)
    quantity = _above_zero(arguments.quantity, "quantity")
    multiplier = instrument.contract_multiplier if instrument else Decimal(1)
    return _Terms(
        _schedule(book, schedule, _signed(arguments)),
        rule if fee is None else _with_liquidation_fee(rule),
        _fee_rate(arguments, rule, schedule, instrument) if fee is None else fee,
        _max_leverage(schedule, quantity, _above_zero(arguments.entry, "entry"), multiplier, rule),
        multiplier,
        instrument.tick_size if instrument else None,
    )


def _with_liquidation_fee(rule: Rule) -> Rule:
    if rule.fee_in_liquidation not in ("none", "at_liquidation"):
        raise ValueError("--liquidation-fee-rate: the rule has a fee for closing: --taker-fee-rate")
    return replace(rule, fee_in_liquidation="at_liquidation")


def _fee_rate(
    arguments: argparse.Namespace,
    rule: Rule,
    schedule: ScheduleRule,
    instrument: InstrumentRule | None,
) -> Decimal:
    """Return the fee rate that the rule uses, if it uses any."""
    if rule.fee_in_liquidation == "at_liquidation" and not arguments.taker_fee_rate:
        return schedule.liquidation_fee_rate
    if arguments.taker_fee_rate is not None:
        return _number(arguments.taker_fee_rate, "taker-fee-rate")
    return instrument.taker_fee_rate if instrument else Decimal(0)


def _schedule(book: Rulebook, schedule: ScheduleRule, quantity: Decimal) -> Schedule:
    """Return the schedule; of a family whose rates are of the size alone, those of this size."""
    if schedule.family not in ("size_sqrt", "risk_factor"):
        return library.margin_schedule(schedule)
    values = schedule.parameters
    if schedule.family == "size_sqrt":
        rates = library.size_sqrt_rates(schedule, quantity)
    else:
        side = "long" if quantity > 0 else "short"
        with localcontext(prec=100):
            slippage = number_of(values, "quadratic_slippage") * abs(quantity)
            slippage += number_of(values, "linear_slippage")
            maintenance = number_of(values, f"risk_factor_{side}") + slippage
            levels = book.levels.parameters if book.levels else {}
            over = levels.get("initial", Decimal(1))
            assert isinstance(over, Decimal), "levels are numbers"
            rates = maintenance * over, maintenance
    initial, maintenance = (min(Decimal(1), rate) for rate in rates)
    return TierSchedule((margin.Tier.of(0, maintenance, initial_rate=initial, deduction=0),))


def _max_leverage(
    schedule: ScheduleRule, quantity: Decimal, entry: Decimal, multiplier: Decimal, rule: Rule
) -> Decimal | None:
    if not schedule.tiers:
        bound = schedule.parameters.get("max_leverage")
        return bound if isinstance(bound, Decimal) else None
    size = quantity
    if schedule.tier_key == "notional":
        size = quantity / entry if rule.contract == "inverse" else quantity * entry
        size *= multiplier
    return schedule.tiers[schedule.tier_index(size)].max_leverage


def _leverage(text: str | None, allowed: Decimal | None) -> Decimal | None:
    """Return the leverage if the tier of the position allows it."""
    if text is None:
        return None
    leverage = _number(text, "leverage")
    if leverage < 1 or (allowed is not None and leverage > allowed):
        bound = "at least 1"
        if allowed is not None:
            bound = f"1 to {allowed.normalize():f}, by the position's size"
        raise ValueError(f"leverage is {text}: must be {bound}")
    return leverage


# --- options --------------------------------------------------------------------------------------


def _option_rule(
    book: Rulebook, instrument: InstrumentRule | None, symbol: str
) -> ParameterRule | None:
    """Return the option rule that a symbol names, or whose option it names."""
    if instrument is not None:
        name = instrument.option_rule
        return book.option_rule(name) if name else None
    schedules = {rule.name for rule in book.schedules}
    rules = {rule.name for rule in book.option_rules}
    return book.option_rule(symbol) if symbol in rules - schedules else None


def _option_figures(
    arguments: argparse.Namespace, instrument: InstrumentRule | None, rule: ParameterRule | None
) -> list[tuple[str, str]]:
    for name in _CONTRACT_ARGUMENTS:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is not of options")
    quantity = _above_zero(arguments.quantity, "quantity")
    entry = _above_zero(arguments.entry, "entry")
    mark = _number(arguments.mark, "mark") if arguments.mark else entry
    multiplier = instrument.contract_multiplier if instrument else Decimal(1)
    with localcontext(prec=100):
        premium = quantity * entry * multiplier
        figures = [
            ("premium", _text(premium)),
            ("value at mark", _text(quantity * mark * multiplier)),
        ]
    if arguments.side == "long":
        return [*figures, ("initial margin", "0, the premium is paid in full")]
    if rule is None:
        assert instrument is not None, "without it there is a rule"
        raise ValueError(f"{instrument.symbol} has no option_rule: it cannot be short")
    if rule.family not in ("short_option", "reg_t"):
        raise ValueError(
            f"option_rule {rule.name}: {rule.family} is of a spread or a time table: riskd.margin "
            "computes it, see docs/families/option_spreads.md"
        )
    option_type, strike = arguments.option_type, arguments.strike
    if instrument is not None:
        if option_type or strike:
            raise ValueError(f"--option-type and --strike are those of {instrument.symbol}")
        option_type, strike = instrument.option_type, str(instrument.strike)
        is_coin = instrument.kind == INVERSE_OPTION
    else:
        is_coin = rule.parameters.get("settlement") == "coin"
    for name, value in (("option-type", option_type), ("strike", strike)):
        if value is None:
            raise ValueError(f"--{name} is needed for the option rule {rule.name}")
    if arguments.underlying is None:
        raise ValueError("--underlying is needed: a short option counts on that price")
    need = margin.option_margin(
        library.option_rule(rule),
        option_type,
        -float(quantity),
        float(_above_zero(arguments.underlying, "underlying")),
        float(mark),
        strike=float(_above_zero(strike, "strike")),
        entry_price=float(entry),
        multiplier=float(multiplier),
    )
    return [
        *figures,
        ("initial margin", _text(Decimal(repr(float(need.initial))))),
        ("maintenance margin", _text(Decimal(repr(float(need.maintenance))))),
        ("money", "coin" if is_coin else "quote currency"),
    ]


# --- numbers --------------------------------------------------------------------------------------


def _signed(arguments: argparse.Namespace) -> Decimal:
    quantity = _above_zero(arguments.quantity, "quantity")
    return quantity if arguments.side == "long" else -quantity


def _number(text: str, field: str) -> Decimal:
    mantissa, exponent = parse_decimal(text, field)
    return Decimal(decimal_text(mantissa, exponent))


def _above_zero(text: str, field: str) -> Decimal:
    number = _number(text, field)
    if number <= 0:
        raise NumberError(field, text, "must be above 0")
    return number


def _price_text(price: Decimal | None) -> str:
    """Return a price; a short at 0 and an inverse long at infinity are liquidated at any."""
    if price is None:
        return "none"
    return _text(price) if price.is_finite() and price > 0 else "any"


def _text(value: Decimal) -> str:
    """Return a figure in plain notation, to 12 decimals."""
    shown = f"{value:.12f}".rstrip("0").rstrip(".")
    return shown if shown not in ("-0", "") else "0"
