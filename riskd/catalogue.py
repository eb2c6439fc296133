"""Symbols and steps of assets, schedules, instruments and firms: what never changes in them.

A view over the engine that translates between decimal text and the engine's integers. It is read
from the engine when a name or id is not known yet, so it cannot go stale: nothing in it can change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from riskd.numbers import (
    INT64_MAX,
    NUMBER_MAX,
    decimal_text,
    fraction_text,
    money_text,
    to_steps,
    to_units,
)

if TYPE_CHECKING:
    from riskd.core.engine import Engine

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset: money that accounts hold, in minor units of 10^-scale."""

    asset_id: int
    symbol: str
    scale: int

    def minor(
        self, text: str, field: str, minimum: int = -INT64_MAX, maximum: int = INT64_MAX
    ) -> int:
        """Return an amount in minor units. Raises NumberError."""
        return to_units(text, field, self.scale, minimum, maximum)

    def amount(self, minor: int) -> str:
        """Return an amount in units of the asset."""
        return money_text(minor, self.scale)


@dataclass(frozen=True, slots=True)
class Instrument:
    """What never changes of an instrument. Steps are mantissa * 10^exponent."""

    instrument_id: int
    symbol: str
    kind: int
    asset: Asset
    tick_mantissa: int
    tick_exponent: int
    lot_mantissa: int
    lot_exponent: int
    mark_units_per_tick: int

    @property
    def tick_size(self) -> Decimal:
        """Price step in quote currency."""
        return Decimal(decimal_text(self.tick_mantissa, self.tick_exponent))

    @property
    def lot_size(self) -> Decimal:
        """Quantity step in units of the underlying."""
        return Decimal(decimal_text(self.lot_mantissa, self.lot_exponent))

    def ticks(self, text: str, field: str, minimum: int = 1) -> int:
        """Return a price in ticks, minimum to 2^53. Raises NumberError."""
        return to_steps(text, field, self.tick_mantissa, self.tick_exponent, minimum, NUMBER_MAX)

    def lots(self, text: str, field: str, minimum: int = 1) -> int:
        """Return a quantity in lots, minimum to 2^53. Raises NumberError."""
        return to_steps(text, field, self.lot_mantissa, self.lot_exponent, minimum, NUMBER_MAX)

    def mark_units(self, text: str, field: str) -> int:
        """Return a price in mark units, 1 to 2^53. Raises NumberError."""
        return to_steps(
            text,
            field,
            self.tick_mantissa,
            self.tick_exponent,
            1,
            NUMBER_MAX,
            divisor=self.mark_units_per_tick,
        )

    def price(self, ticks: int) -> str:
        """Return a price of ticks in quote currency."""
        return decimal_text(ticks * self.tick_mantissa, self.tick_exponent)

    def mark_price(self, units: int) -> str:
        """Return a price of mark units in quote currency."""
        return fraction_text(
            units * self.tick_mantissa, self.mark_units_per_tick, self.tick_exponent
        )

    def quantity(self, lots: int) -> str:
        """Return a quantity of lots in units of the underlying."""
        return decimal_text(lots * self.lot_mantissa, self.lot_exponent)

    def entry_price(self, entry_value: int, lots: int) -> str:
        """Return the average price of an entry value in minor units, to 12 decimals, half even."""
        return fraction_text(
            entry_value,
            abs(lots) * self.lot_mantissa,
            -self.asset.scale - self.lot_exponent,
            places=12,
        )


class Catalogue:
    """Looks up assets, schedules and instruments by id and by name. Thread-safe."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        # Replaced as a whole, so that readers need no lock.
        self._assets: dict[int, Asset] = {}
        self._asset_ids: dict[str, int] = {}
        self._instruments: dict[int, Instrument] = {}
        self._instrument_ids: dict[str, int] = {}
        self._schedule_names: dict[int, str] = {}
        self._schedule_ids: dict[str, int] = {}
        self._firm_assets: dict[int, int] = {}

    def asset(self, asset_id: int) -> Asset | None:
        """Return an asset by id."""
        return self._find(lambda: self._assets.get(asset_id), self._load_assets)

    def asset_by_symbol(self, symbol: str) -> Asset | None:
        """Return an asset by symbol."""
        asset_id = self._find(lambda: self._asset_ids.get(symbol), self._load_assets)
        return None if asset_id is None else self.asset(asset_id)

    def instrument(self, instrument_id: int) -> Instrument | None:
        """Return an instrument by id."""
        return self._find(lambda: self._instruments.get(instrument_id), self._load_instruments)

    def instrument_by_symbol(self, symbol: str) -> Instrument | None:
        """Return an instrument by symbol."""
        found = self._find(lambda: self._instrument_ids.get(symbol), self._load_instruments)
        return None if found is None else self.instrument(found)

    def schedule_id(self, name: str) -> int | None:
        """Return a margin schedule's id by its name."""
        return self._find(lambda: self._schedule_ids.get(name), self._load_schedules)

    def schedule_name(self, schedule_id: int) -> str:
        """Return a margin schedule's name by its id; empty for none."""
        return self._find(lambda: self._schedule_names.get(schedule_id), self._load_schedules) or ""

    def asset_of_firm(self, firm_id: int) -> Asset | None:
        """Return the settlement asset of a firm, None if there is no such firm."""
        asset_id = self._find(lambda: self._firm_assets.get(firm_id), self._load_firms)
        return None if asset_id is None else self.asset(asset_id)

    @staticmethod
    def _find(look: Callable[[], _Found | None], load: Callable[[], None]) -> _Found | None:
        found = look()
        if found is None:
            load()
            found = look()
        return found

    def _load_assets(self) -> None:
        assets = [Asset(*row) for row in self._engine.assets()]
        self._assets = {asset.asset_id: asset for asset in assets}
        self._asset_ids = {asset.symbol: asset.asset_id for asset in assets}

    def _load_schedules(self) -> None:
        rows = self._engine.schedules()
        self._schedule_names = {row.schedule_id: row.name for row in rows}
        self._schedule_ids = {row.name: row.schedule_id for row in rows}

    def _load_firms(self) -> None:
        self._firm_assets = {row.firm_id: row.asset_id for row in self._engine.firms()}

    def _load_instruments(self) -> None:
        self._load_assets()
        instruments = [
            Instrument(
                row.instrument_id,
                row.symbol,
                row.kind,
                self._assets[row.asset_id],
                row.tick_mantissa,
                row.tick_exponent,
                row.lot_mantissa,
                row.lot_exponent,
                row.mark_units_per_tick,
            )
            for row in self._engine.instruments()
        ]
        self._instruments = {item.instrument_id: item for item in instruments}
        self._instrument_ids = {item.symbol: item.instrument_id for item in instruments}
