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
    NumberError,
    decimal_text,
    fraction_text,
    money_text,
    parse_decimal,
    to_steps,
    to_units,
)

if TYPE_CHECKING:
    from riskd.core.engine import Engine

ENTRY_VALUE_MAX = 2**62

# Numbers of proto/riskd/v1: INSTRUMENT_KIND_INVERSE_PERPETUAL and _FUTURE, _LINEAR_ and
# _INVERSE_OPTION, _SPOT.
_INVERSE_CONTRACTS = (3, 5)
_OPTIONS = (2, 6)
_SPOT = 7

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
    """What never changes of an instrument. Steps are mantissa * 10^exponent.

    Of an inverse contract one lot is lot_size times multiplier of the quote currency, and worth
    that over the price.
    """

    instrument_id: int
    symbol: str
    kind: int
    asset: Asset
    tick_mantissa: int
    tick_exponent: int
    lot_mantissa: int
    lot_exponent: int
    mark_units_per_tick: int
    multiplier_mantissa: int = 1
    multiplier_exponent: int = 0
    isolated_only: bool = False
    """Its positions are isolated, whatever an account's or a position's setting says."""

    @property
    def is_inverse(self) -> bool:
        """Whether it is a contract that is worth less coin at a higher price."""
        return self.kind in _INVERSE_CONTRACTS

    @property
    def is_option(self) -> bool:
        """Whether it is an option."""
        return self.kind in _OPTIONS

    @property
    def is_spot(self) -> bool:
        """Whether it is a pair of assets that are exchanged, without a position."""
        return self.kind == _SPOT

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
        money, size = entry_value, abs(lots) * self.lot_mantissa * self.multiplier_mantissa
        exponent = -self.asset.scale - self.lot_exponent - self.multiplier_exponent
        if not self.is_inverse:
            return fraction_text(money, size, exponent, places=12)
        return fraction_text(size, money, -exponent, places=12) if money else ""

    def entry_value(self, price: str, lots: int, field: str) -> int:
        """Return the value of lots at an average price in minor units, half even.

        Raises NumberError. It is what entry_price was made from, if that had enough digits.
        """
        mantissa, exponent = parse_decimal(price, field)
        if mantissa <= 0:
            raise NumberError(field, price, "must be above 0")
        size = abs(lots) * self.lot_mantissa * self.multiplier_mantissa
        size_exponent = self.asset.scale + self.lot_exponent + self.multiplier_exponent
        if self.is_inverse:
            value = fraction_text(size, mantissa, size_exponent - exponent, places=0)
        else:
            value = fraction_text(size * mantissa, 1, size_exponent + exponent, places=0)
        if not 0 < int(value) <= ENTRY_VALUE_MAX:
            raise NumberError(field, price, "must give a value of 1 to 2^62 minor units at entry")
        return int(value)


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
                row.multiplier_mantissa,
                row.multiplier_exponent,
                bool(row.isolated_only),
            )
            for row in self._engine.instruments()
        ]
        self._instruments = {item.instrument_id: item for item in instruments}
        self._instrument_ids = {item.symbol: item.instrument_id for item in instruments}
