"""The laws of instruments: bounds of single values, and what their kind has."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from riskd.rulebooks.schema import (
    EXACT,
    FUTURES,
    INT64_MAX,
    INVERSE_OPTION,
    INVERSE_UNITS_MAX,
    KINDS,
    LOT_VALUE_MAX,
    LOTS_MAX,
    MARK_AGE_MS_MAX,
    MARK_UNITS_MAX,
    NAME,
    ONE,
    OPTION_TYPES,
    PERPETUALS,
    QUANTO_PERPETUAL,
    RATE_PLACES,
    SPOT,
    STEP_EXPONENT_MAX,
    STEP_MANTISSA_MAX,
    TICK_VALUE_MAX,
    TRADING_STATES,
    UNITS_MAX,
    ZERO,
    AssetRule,
    InstrumentRule,
    Rulebook,
    RulebookError,
    find_asset,
    key_text,
    mantissa_exponent,
    multiple,
    plain,
    scaled,
)

FUNDING_INTERVAL_MS_MAX = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class InstrumentLaws:
    """The bounds of one instrument."""

    rule: InstrumentRule
    rulebook: Rulebook
    path: str

    def refuse(self, key: str, value: object, reason: str) -> RulebookError:
        section = f"instrument.{key_text(self.rule.symbol)}"
        return RulebookError(self.path, f"{section}.{key}" if key else section, reason, value)

    def validate(self) -> None:
        if not NAME.fullmatch(self.rule.symbol):
            raise self.refuse("", None, "a symbol is 1 to 31 printable ASCII characters, no space")
        if self.rule.kind not in KINDS:
            raise self.refuse("kind", self.rule.kind, f"must be one of {', '.join(KINDS)}")
        if self.rule.trading_state not in TRADING_STATES:
            reason = f"must be one of {', '.join(TRADING_STATES)}"
            raise self.refuse("trading_state", self.rule.trading_state, reason)
        assets = {asset.symbol: asset for asset in self.rulebook.assets}
        section = f"instrument.{key_text(self.rule.symbol)}"
        asset = find_asset(
            self.rule.settlement_asset, assets, f"{section}.settlement_asset", self.path
        )
        self.validate_keys()
        self.validate_steps(asset.scale)
        self.validate_quantities()
        self.validate_notionals(asset.scale)
        self.validate_rates()
        if self.rule.expiry is not None and not 0 < self.rule.expiry_ns() <= INT64_MAX:
            raise self.refuse("expiry", self.rule.expiry, "must be after 1970 and before 2262")
        if self.rule.is_option:
            self.validate_option()
        elif self.rule.is_contract:
            self.validate_contract()
            if self.rule.base_asset is not None:
                find_asset(self.rule.base_asset, assets, f"{section}.base_asset", self.path)
        else:
            self.validate_spot(assets, section)

    def validate_spot(self, assets: Mapping[str, AssetRule], section: str) -> None:
        rule = self.rule
        base = find_asset(rule.base_asset or "", assets, f"{section}.base_asset", self.path)
        if base.symbol == rule.settlement_asset:
            raise self.refuse("base_asset", base.symbol, "is the settlement_asset too")
        units = scaled(rule.lot_size, base.scale)
        if units is None or units > TICK_VALUE_MAX:
            reason = f"must be 1 to 2^40 whole minor units of {base.symbol} (10^-{base.scale})"
            raise self.refuse("lot_size", rule.lot_size, reason)

    def validate_keys(self) -> None:
        """Refuse what the kind does not have, and what it must have."""
        rule = self.rule
        contract = rule.is_contract
        is_coin = rule.kind == INVERSE_OPTION
        of_kinds: Mapping[str, tuple[bool, bool]] = {
            # key: the kind may have it, the kind must have it
            "margin_schedule": (contract, contract),
            "base_asset": (contract or rule.kind == SPOT, rule.kind == SPOT),
            "expiry": (rule.kind in FUTURES or rule.is_option,) * 2,
            "strike": (rule.is_option, rule.is_option),
            "option_type": (rule.is_option, rule.is_option),
            "interest_rate": (rule.is_option, False),
            "underlying": (rule.is_option, rule.is_option and (is_coin or bool(rule.option_rule))),
            "option_rule": (rule.is_option, False),
            "isolated_only": (contract, False),
            "funding_interval_ms": (rule.kind in PERPETUALS, False),
            "contract_multiplier": (rule.kind != SPOT, rule.kind == QUANTO_PERPETUAL),
        }
        absent = {"isolated_only": False, "funding_interval_ms": 0, "contract_multiplier": ONE}
        for key, (may, must) in of_kinds.items():
            value = getattr(rule, key)
            is_given = value not in (None, "") and value != absent.get(key)
            if is_given and not may:
                raise self.refuse(key, value, f"is not for {rule.kind}")
            if must and not is_given:
                raise self.refuse(key, None, f"is missing, {rule.kind} needs it")

    def validate_steps(self, scale: int) -> None:
        rule = self.rule
        for key, step in (("tick_size", rule.tick_size), ("lot_size", rule.lot_size)):
            if step <= ZERO:
                raise self.refuse(key, step, "must be above 0")
            mantissa, exponent = mantissa_exponent(step)
            if mantissa > STEP_MANTISSA_MAX or abs(exponent) > STEP_EXPONENT_MAX:
                reason = "must be at most 10^12 times a power of ten from 10^-12 to 10^12"
                raise self.refuse(key, step, reason)
        multiplier = rule.contract_multiplier
        if not ZERO < multiplier <= Decimal(10) ** 12 or scaled(multiplier, 12) is None:
            reason = "must be above 0, at most 10^12, with at most 12 decimals"
            raise self.refuse("contract_multiplier", multiplier, reason)
        if not 1 <= rule.mark_units_per_tick <= MARK_UNITS_MAX:
            reason = "must be 1 to 10^9"
            raise self.refuse("mark_units_per_tick", rule.mark_units_per_tick, reason)
        if not 0 <= rule.mark_age_max_ms <= MARK_AGE_MS_MAX:
            reason = f"must be 0 (no bound) to {MARK_AGE_MS_MAX}"
            raise self.refuse("mark_age_max_ms", rule.mark_age_max_ms, reason)
        if not 0 <= rule.funding_interval_ms <= FUNDING_INTERVAL_MS_MAX:
            reason = f"must be 0 (not stated) to {FUNDING_INTERVAL_MS_MAX}, a week"
            raise self.refuse("funding_interval_ms", rule.funding_interval_ms, reason)
        if rule.is_inverse:
            self.validate_inverse_step(scale)
        else:
            self.validate_linear_step(scale)

    def step_text(self) -> str:
        text = f"lot_size {plain(self.rule.lot_size)}"
        if self.rule.contract_multiplier != ONE:
            text += f" times contract_multiplier {plain(self.rule.contract_multiplier)}"
        return text

    def validate_linear_step(self, scale: int) -> None:
        step = self.rule.value_step()
        value = scaled(step, scale)
        if value is None:
            reason = (
                f"times {self.step_text()} is {plain(step)}, "
                f"not a whole number of minor units (10^-{scale})"
            )
            raise self.refuse("tick_size", self.rule.tick_size, reason)
        if value > TICK_VALUE_MAX:
            reason = f"times {self.step_text()} is {value} minor units, must be at most 2^40"
            raise self.refuse("tick_size", self.rule.tick_size, reason)
        if self.rule.kind == INVERSE_OPTION:
            # What a lot is worth at a price of 1 coin.
            lot = EXACT.multiply(self.rule.lot_size, self.rule.contract_multiplier)
            coins = scaled(lot, scale)
            if coins is None or coins > LOT_VALUE_MAX:
                reason = f"must be at most 2^60 whole minor units of coin (10^-{scale})"
                raise self.refuse("lot_size", self.rule.lot_size, reason)

    def validate_inverse_step(self, scale: int) -> None:
        value = self.rule.lot_value(scale)
        if value is None:
            reason = f"must divide {self.step_text()} in minor units (10^-{scale}) wholly"
            raise self.refuse("tick_size", self.rule.tick_size, reason)
        if value > LOT_VALUE_MAX or value * self.rule.mark_units_per_tick > INVERSE_UNITS_MAX:
            reason = (
                f"makes a lot worth {value} minor units at one tick, must be at most 2^60,"
                " and 2^70 with mark_units_per_tick"
            )
            raise self.refuse("tick_size", self.rule.tick_size, reason)

    def validate_quantities(self) -> None:
        rule = self.rule
        quantities = (
            ("order_quantity_min", rule.order_quantity_min),
            ("order_quantity_max", rule.order_quantity_max),
        )
        for key, quantity in quantities:
            if quantity is None:
                continue
            lots = multiple(quantity, rule.lot_size)
            if lots is None:
                reason = f"is not a multiple of lot_size {plain(rule.lot_size)}"
                raise self.refuse(key, quantity, reason)
            if not 1 <= lots <= LOTS_MAX:
                raise self.refuse(key, quantity, f"is {lots} lots, must be 1 to 2^53")
        self.refuse_crossed("order_quantity", rule.order_quantity_min, rule.order_quantity_max)

    def validate_notionals(self, scale: int) -> None:
        rule = self.rule
        notionals = (
            ("order_notional_min", rule.order_notional_min),
            ("order_notional_max", rule.order_notional_max),
        )
        for key, notional in notionals:
            if notional is None:
                continue
            minor = scaled(notional, scale)
            if minor is None:
                raise self.refuse(key, notional, f"has more than {scale} decimals (asset scale)")
            if not 1 <= minor <= INT64_MAX:
                reason = f"is {minor} minor units, must be 1 to 2^63-1; leave it out for no bound"
                raise self.refuse(key, notional, reason)
        self.refuse_crossed("order_notional", rule.order_notional_min, rule.order_notional_max)

    def refuse_crossed(self, key: str, low: Decimal | None, high: Decimal | None) -> None:
        if low is not None and high is not None and low > high:
            reason = f"must be at least {key}_min {plain(low)}"
            raise self.refuse(f"{key}_max", high, reason)

    def validate_rates(self) -> None:
        rule = self.rule
        collar = rule.price_collar_rate
        if collar is not None and not ZERO < collar <= ONE:
            reason = "must be above 0 and at most 1; leave it out for no bound"
            raise self.refuse("price_collar_rate", collar, reason)
        rates = (
            ("price_collar_rate", collar or ZERO),
            ("market_order_buffer_rate", rule.market_order_buffer_rate),
            ("taker_fee_rate", rule.taker_fee_rate),
        )
        # A sell at the mark less the buffer must keep a price.
        if rule.market_order_buffer_rate == ONE:
            raise self.refuse("market_order_buffer_rate", ONE, "must be below 1")
        for key, rate in rates:
            if not ZERO <= rate <= ONE:
                raise self.refuse(key, rate, "must be 0 to 1")
            if scaled(rate, RATE_PLACES) is None:
                raise self.refuse(key, rate, f"has more than {RATE_PLACES} decimals")

    def validate_contract(self) -> None:
        rule = self.rule
        schedules = {each.name: each for each in self.rulebook.schedules}
        if rule.margin_schedule not in schedules:
            there = ", ".join(list(schedules)[:10]) or "none"
            reason = f"has no section [schedule.{rule.margin_schedule}]; there is {there}"
            raise self.refuse("margin_schedule", rule.margin_schedule, reason)
        schedule = schedules[rule.margin_schedule]
        if schedule.settlement_asset != rule.settlement_asset:
            reason = f"is in {schedule.settlement_asset}, settlement_asset {rule.settlement_asset}"
            raise self.refuse("margin_schedule", rule.margin_schedule, reason)

    def validate_option(self) -> None:
        rule = self.rule
        if rule.option_type not in OPTION_TYPES:
            reason = f"must be one of {', '.join(OPTION_TYPES)}"
            raise self.refuse("option_type", rule.option_type, reason)
        underlying: InstrumentRule | None = None
        if rule.underlying is not None:
            contracts = {each.symbol: each for each in self.rulebook.instruments}
            underlying = contracts.get(rule.underlying)
            if underlying is None or not underlying.is_contract:
                symbols = [symbol for symbol, each in contracts.items() if each.is_contract]
                there = ", ".join(symbols[:10]) or "none"
                reason = f"must be a perpetual or future of this rulebook; there is {there}"
                raise self.refuse("underlying", rule.underlying, reason)
        self.validate_strike(rule.strike or ZERO, underlying)
        rate = rule.interest_rate or ZERO
        if not -ONE <= rate <= ONE:
            raise self.refuse("interest_rate", rate, "must be -1 to 1")
        if scaled(rate, RATE_PLACES) is None:
            raise self.refuse("interest_rate", rate, f"has more than {RATE_PLACES} decimals")
        rules = [each.name for each in self.rulebook.option_rules]
        if rule.option_rule is not None and rule.option_rule not in rules:
            there = ", ".join(rules[:10]) or "none"
            reason = f"has no section [option_rule.{rule.option_rule}]; there is {there}"
            raise self.refuse("option_rule", rule.option_rule, reason)

    def validate_strike(self, strike: Decimal, underlying: InstrumentRule | None) -> None:
        try:
            units = self.rule.strike_units(underlying)
        except ValueError:
            whose = "" if self.rule.kind != INVERSE_OPTION else " of the underlying"
            reason = f"is not a multiple of tick_size / mark_units_per_tick{whose}"
            raise self.refuse("strike", strike, reason) from None
        if not 1 <= units <= UNITS_MAX:
            raise self.refuse("strike", strike, f"is {units} mark units, must be 1 to 2^53")
