"""Put a rulebook into an engine."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from riskd.numbers import normalise
from riskd.rulebooks.schema import LevelsRule, Rulebook, ScheduleRule, number_of, whole
from riskd.rulebooks.terms import (
    InstrumentIds,
    OptionTerms,
    ScheduleTerms,
    collateral_terms,
    installed_option_rules,
    installed_schedules,
    instrument_arguments,
    option_asset,
    option_terms,
    schedule_terms,
    unsupported,
)
from riskd.rulebooks.versions import has_versions, select
from riskd.v1 import types_pb2


class _Asset(Protocol):
    @property
    def asset_id(self) -> int: ...
    @property
    def symbol(self) -> str: ...
    @property
    def scale(self) -> int: ...


class _Schedule(Protocol):
    @property
    def schedule_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def asset_id(self) -> int: ...
    @property
    def notional_max(self) -> int: ...
    @property
    def liquidation_fee_ppb(self) -> int: ...
    @property
    def tiers(self) -> Sequence[Sequence[int]]: ...
    @property
    def family(self) -> int: ...
    @property
    def maintenance_basis(self) -> int: ...
    @property
    def parameter_a(self) -> int: ...
    @property
    def parameter_b(self) -> int: ...
    @property
    def parameter_c(self) -> int: ...
    @property
    def closing_fee(self) -> int: ...
    @property
    def parameter_d(self) -> int: ...
    @property
    def parameter_e(self) -> int: ...


class _Instrument(Protocol):
    @property
    def instrument_id(self) -> int: ...
    @property
    def symbol(self) -> str: ...
    def _asdict(self) -> dict[str, Any]: ...


class RuleEngine(Protocol):
    """What `apply` needs of an engine: riskd.core.engine.Engine and ReferenceEngine have it."""

    def assets(self) -> Sequence[_Asset]: ...
    def schedules(self) -> Sequence[_Schedule]: ...
    def instruments(self) -> Sequence[_Instrument]: ...
    def create_asset(self, symbol: str, scale: int) -> tuple[int, int]: ...
    def upsert_schedule(
        self,
        name: str,
        asset_id: int,
        tiers: Sequence[tuple[int, int, int, int]],
        notional_max: int = ...,
        liquidation_fee_ppb: int = ...,
        family: int = ...,
        maintenance_basis: int = ...,
        parameter_a: int = ...,
        parameter_b: int = ...,
        parameter_c: int = ...,
        closing_fee: int = ...,
    ) -> tuple[int, int]: ...
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
        mark_units_per_tick: int = ...,
        order_lots_min: int = ...,
        order_lots_max: int = ...,
        order_notional_min: int = ...,
        order_notional_max: int = ...,
        price_collar_ppb: int = ...,
        market_buffer_ppb: int = ...,
        taker_fee_ppb: int = ...,
        mark_age_max_ns: int = ...,
        trading_state: int = ...,
        expiry_ns: int = ...,
        strike_units: int = ...,
        option_type: int = ...,
        interest_rate_ppb: int = ...,
        underlying_id: int = ...,
        multiplier_mantissa: int = ...,
        multiplier_exponent: int = ...,
        option_rule_id: int = ...,
        base_asset_id: int = ...,
        isolated_only: int = ...,
    ) -> tuple[int, int]: ...
    def upsert_option_rule(
        self,
        name: str,
        asset_id: int,
        initial_ppb: int,
        initial_min_ppb: int,
        maintenance_ppb: int,
        put_maintenance: int = ...,
        parameter_d: int = ...,
        parameter_e: int = ...,
    ) -> tuple[int, int]: ...
    def collateral(self) -> Sequence[Any]: ...
    def define_collateral(
        self,
        asset_id: int,
        settlement_asset_id: int,
        index_instrument_id: int,
        tiers: Sequence[tuple[int, int]],
        cap: int = ...,
        liability_ppb: int = ...,
        interest_free: int = ...,
        forced_conversion: int = ...,
        wrong_way_ppb: int = ...,
    ) -> int: ...
    def margin_levels(self) -> tuple[int, int]: ...
    def set_margin_levels(self, search_ppm: int, release_ppm: int) -> int: ...


class ApplyError(ValueError):
    """The engine does not take a rule: names the rulebook, the rule and why."""


PROBLEMS_SHOWN: Final = 10
_PPM_PLACES: Final = 6

# An instrument keeps these for its life: UpsertInstrumentRequest in instrument_service.proto.
IMMUTABLE: Final = (
    "kind",
    "asset_id",
    "tick_mantissa",
    "tick_exponent",
    "lot_mantissa",
    "lot_exponent",
    "mark_units_per_tick",
    "strike_units",
    "option_type",
    "multiplier_mantissa",
    "multiplier_exponent",
    "base_asset_id",
    "isolated_only",
)


def apply(rulebook: Rulebook, engine: RuleEngine, at: datetime | None = None) -> dict[str, int]:
    """Create or bring up to date what the rulebook names; return symbol to instrument id.

    at says which versions are in force; a rulebook that has versions needs it.

    What is already as the rulebook says is left alone, so that a second call changes nothing. The
    trading state of an instrument that exists stays: a restart must not lift a halt. Conflicts
    with what cannot change are found before the first change. Each schedule changes at once and
    whole; between two of them orders can be decided.
    Raises ApplyError, naming the rule and the reason: what the engine cannot do yet, too.
    """
    if at is not None:
        rulebook = select(rulebook, at)
    elif has_versions(rulebook):
        raise ApplyError(f"rulebook {rulebook.name}: has versions: say at which time to apply it")
    missing = unsupported(rulebook)
    if missing:
        shown = ", ".join(missing[:PROBLEMS_SHOWN])
        more = len(missing) - PROBLEMS_SHOWN
        text = f"{shown} and {more} more" if more > 0 else shown
        raise ApplyError(f"rulebook {rulebook.name}: the engine cannot do it yet: {text}")
    return _Installer(rulebook, engine).run()


class _Installer:
    """One rulebook on its way into one engine."""

    def __init__(self, rulebook: Rulebook, engine: RuleEngine) -> None:
        self._rulebook = rulebook
        self._engine = engine
        self._assets = {row.symbol: row.asset_id for row in engine.assets()}
        self._schedules = {row.name: row.schedule_id for row in engine.schedules()}
        self._instruments: dict[str, int] = {}

    def run(self) -> dict[str, int]:
        self._refuse_conflicts()
        self._apply_assets()
        self._apply_schedules()
        self._apply_option_rules()
        self._apply_instruments()
        self._apply_collateral()
        if self._rulebook.levels is not None:
            self._apply_levels(self._rulebook.levels)
        return {rule.symbol: self._instruments[rule.symbol] for rule in self._rulebook.instruments}

    def _refuse_conflicts(self) -> None:
        rulebook, engine = self._rulebook, self._engine
        assets = {row.symbol: row for row in engine.assets()}
        for asset in rulebook.assets:
            there = assets.get(asset.symbol)
            if there and there.scale != asset.scale:
                reason = f"scale {asset.scale}, the engine has it with {there.scale}"
                raise self._error(f"asset {asset.symbol}", reason)
        symbols = {row.asset_id: row.symbol for row in assets.values()}
        schedules = {row.name: row for row in engine.schedules()}
        for schedule in rulebook.schedules:
            row = schedules.get(schedule.name)
            if row and symbols[row.asset_id] != schedule.settlement_asset:
                reason = f"in {schedule.settlement_asset}, the engine has it in "
                reason += symbols[row.asset_id]
                raise self._error(f"schedule {schedule.name}", reason)
        instruments = {row.symbol: row._asdict() for row in engine.instruments()}
        for rule in rulebook.instruments:
            if rule.symbol not in instruments:
                continue
            held = _normal(instruments[rule.symbol])
            ids = InstrumentIds(
                asset=self._assets.get(rule.settlement_asset, 0),
                base_asset=self._assets.get(rule.base_asset or "", 0),
            )
            wanted = self._arguments(rule.symbol, ids)
            for key in IMMUTABLE:
                if held[key] != wanted[key]:
                    reason = f"{key} is {wanted[key]}, the engine has it with {held[key]} for good"
                    raise self._error(f"instrument {rule.symbol}", reason)

    def _arguments(self, symbol: str, ids: InstrumentIds) -> dict[str, int]:
        rule = self._rulebook.instrument(symbol)
        scale = self._rulebook.asset(rule.settlement_asset).scale
        underlying = self._rulebook.instrument(rule.underlying) if rule.underlying else None
        return instrument_arguments(rule, scale, ids, underlying)

    def _apply_assets(self) -> None:
        for asset in self._rulebook.assets:
            if asset.symbol not in self._assets:
                reason, asset_id = self._engine.create_asset(asset.symbol, asset.scale)
                self._accept(reason, f"asset {asset.symbol}")
                self._assets[asset.symbol] = asset_id

    def _apply_schedules(self) -> None:
        rows = {row.name: row for row in self._engine.schedules()}
        for schedule in installed_schedules(self._rulebook):
            terms = schedule_terms(self._rulebook, schedule)
            row = rows.get(schedule.name)
            if row and _terms_of(row) == terms:
                continue
            reason, self._schedules[schedule.name] = self._engine.upsert_schedule(
                name=schedule.name,
                asset_id=self._assets[schedule.settlement_asset],
                tiers=list(terms.tiers),
                notional_max=terms.notional_max,
                liquidation_fee_ppb=terms.liquidation_fee_ppb,
                family=terms.family,
                maintenance_basis=terms.maintenance_basis,
                parameter_a=terms.parameter_a,
                parameter_b=terms.parameter_b,
                parameter_c=terms.parameter_c,
                closing_fee=terms.closing_fee,
            )
            self._accept(reason, f"schedule {schedule.name}")
        self._refuse_other_deductions()

    def _refuse_other_deductions(self) -> None:
        # The engine computes deductions itself; they are the venue's printed ones, or one of us
        # errs.
        rows = {row.name: row for row in self._engine.schedules()}
        for schedule in installed_schedules(self._rulebook):
            if not _has_deductions(schedule):
                continue
            scale = self._rulebook.asset(schedule.settlement_asset).scale
            tiers = schedule.engine_tiers(scale)
            held = [tuple(tier) for tier in rows[schedule.name].tiers]
            if held != list(tiers):
                reason = f"the engine holds the tiers {held}, the rulebook says {list(tiers)}"
                raise self._error(f"schedule {schedule.name}", reason)

    def _apply_option_rules(self) -> None:
        rows = {row.name: row for row in self._engine.schedules()}
        for rule in installed_option_rules(self._rulebook):
            asset = option_asset(self._rulebook, rule)
            assert asset is not None, "an option has it"
            terms = option_terms(self._rulebook, rule)
            row = rows.get(rule.name)
            if row:
                tier = row.tiers[0]
                held = OptionTerms(
                    tier[1],
                    row.parameter_a,
                    tier[2],
                    row.parameter_b,
                    row.parameter_d,
                    row.parameter_e,
                )
                if held == terms:
                    continue
            reason, self._schedules[rule.name] = self._engine.upsert_option_rule(
                name=rule.name,
                asset_id=self._assets[asset],
                initial_ppb=terms.initial_ppb,
                initial_min_ppb=terms.initial_min_ppb,
                maintenance_ppb=terms.maintenance_ppb,
                put_maintenance=terms.put_maintenance,
                parameter_d=terms.parameter_d,
                parameter_e=terms.parameter_e,
            )
            self._accept(reason, f"option_rule {rule.name}")

    def _apply_instruments(self) -> None:
        rows = {row.symbol: row for row in self._engine.instruments()}
        # Options last: they name their underlying by its id.
        for rule in sorted(self._rulebook.instruments, key=lambda rule: rule.is_option):
            ids = InstrumentIds(
                self._assets[rule.settlement_asset],
                self._schedules[rule.margin_schedule] if rule.margin_schedule else 0,
                self._instruments[rule.underlying] if rule.underlying else 0,
                self._schedules[rule.option_rule] if rule.option_rule else 0,
                self._assets[rule.base_asset] if rule.base_asset else 0,
            )
            arguments = self._arguments(rule.symbol, ids)
            row = rows.get(rule.symbol)
            if row:
                held = _normal(row._asdict())
                arguments["trading_state"] = held["trading_state"]
                if all(held[key] == value for key, value in arguments.items()):
                    self._instruments[rule.symbol] = row.instrument_id
                    continue
            reason, instrument_id = self._engine.upsert_instrument(rule.symbol, **arguments)
            self._accept(reason, f"instrument {rule.symbol}")
            self._instruments[rule.symbol] = instrument_id

    def _apply_collateral(self) -> None:
        if not self._rulebook.collateral:
            return
        rows = {(row.asset_id, row.settlement_asset_id): row for row in self._engine.collateral()}
        for rule in self._rulebook.collateral:
            terms = collateral_terms(self._rulebook, rule)
            index = self._rulebook.instrument(str(rule.parameters["index"]))
            asset_id = self._assets[rule.name]
            settlement_id = self._assets[index.settlement_asset]
            wanted = (
                self._instruments[index.symbol],
                terms.tiers,
                terms.cap,
                terms.liability_ppb,
                terms.interest_free,
                terms.forced_conversion,
                terms.wrong_way_ppb,
            )
            row = rows.get((asset_id, settlement_id))
            if row and wanted == (
                row.index_instrument_id,
                row.tiers,
                row.cap,
                row.liability_ppb,
                row.interest_free,
                row.forced_conversion,
                row.wrong_way_ppb,
            ):
                continue
            reason = self._engine.define_collateral(
                asset_id=asset_id,
                settlement_asset_id=settlement_id,
                index_instrument_id=wanted[0],
                tiers=list(terms.tiers),
                cap=terms.cap,
                liability_ppb=terms.liability_ppb,
                interest_free=terms.interest_free,
                forced_conversion=terms.forced_conversion,
                wrong_way_ppb=terms.wrong_way_ppb,
            )
            self._accept(reason, f"collateral {rule.name}")

    def _apply_levels(self, levels: LevelsRule) -> None:
        values = levels.parameters
        search, release = (
            whole(number_of(values, key), _PPM_PLACES) for key in ("search", "release")
        )
        if tuple(self._engine.margin_levels()) != (search, release):
            self._accept(self._engine.set_margin_levels(search, release), "levels")

    def _accept(self, reason: int, rule: str) -> None:
        if reason != types_pb2.REASON_CODE_NONE:
            name = types_pb2.ReasonCode.Name(types_pb2.ReasonCode.ValueType(reason))
            raise self._error(rule, f"the engine refuses it: {name}")

    def _error(self, rule: str, reason: str) -> ApplyError:
        return ApplyError(f"rulebook {self._rulebook.name}: {rule}: {reason}")


def _has_deductions(schedule: ScheduleRule) -> bool:
    return bool(schedule.tiers) and schedule.tier_mode == "marginal"


def _terms_of(row: _Schedule) -> ScheduleTerms:
    """Return what an engine holds of a schedule."""
    return ScheduleTerms(
        tuple((tier[0], tier[1], tier[2], tier[4]) for tier in row.tiers),
        row.notional_max,
        row.liquidation_fee_ppb,
        row.family,
        row.maintenance_basis,
        row.parameter_a,
        row.parameter_b,
        row.parameter_c,
        row.closing_fee,
    )


def _normal(row: Mapping[str, int]) -> dict[str, int]:
    """Return the row with steps whose mantissas are not multiples of 10."""
    fields = dict(row)
    for step in ("tick", "lot", "multiplier"):
        keys = (f"{step}_mantissa", f"{step}_exponent")
        fields |= zip(keys, normalise(fields[keys[0]], fields[keys[1]]), strict=True)
    return fields
