"""The instruments and assets of the service, and the conversion of their numbers."""

import difflib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal

from riskd_client.errors import OffLot, OffMinorUnit, OffTick, UnknownSymbol
from riskd_client.numbers import (
    EXACT,
    QUOTIENT,
    Amount,
    exact,
    minor_units,
    money,
    step_value,
    whole_steps,
)
from riskd_client.values import Asset, Instrument


class CatalogueIncompleteError(LookupError):
    """The catalogue must be loaded, again or for the first time; the clients then do so."""


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument with the scales of its settlement and base asset: all that conversion needs."""

    instrument: Instrument
    scale: int
    base_scale: int = 0

    def price_ticks(self, price: Amount, field: str = "price") -> int:
        """Return price in ticks. Raises OffTick, OutOfRange, InvalidInput or TypeError."""
        return whole_steps(price, self.instrument.tick_size, 1, self._named(field), OffTick)

    def quantity_lots(self, quantity: Amount, field: str = "quantity") -> int:
        """Return quantity in lots. Raises OffLot, OutOfRange, InvalidInput or TypeError."""
        return whole_steps(quantity, self.instrument.lot_size, 1, self._named(field), OffLot)

    def mark_units(self, price: Amount, field: str = "mark price") -> int:
        """Return price in mark units. Raises OffTick, OutOfRange, InvalidInput or TypeError."""
        per_tick = self.instrument.mark_units_per_tick
        return whole_steps(price, self.instrument.tick_size, per_tick, self._named(field), OffTick)

    def money_minor(self, amount: Amount, field: str) -> int:
        """Return money in minor units, signed. Raises OffMinorUnit, OutOfRange or TypeError."""
        return minor_units(amount, self.scale, self._named(field), OffMinorUnit)

    def price(self, ticks: int) -> Decimal:
        """Return ticks as a price."""
        return step_value(ticks, self.instrument.tick_size)

    def quantity(self, lots: int) -> Decimal:
        """Return lots, signed, as a quantity."""
        return step_value(lots, self.instrument.lot_size)

    def mark_price(self, units: int) -> Decimal:
        """Return mark units as a price."""
        return step_value(units, self.instrument.tick_size, self.instrument.mark_units_per_tick)

    def money(self, minor: int) -> Decimal:
        """Return minor units as money."""
        return money(minor, self.scale)

    def round_price(self, price: Amount, rounding: str = ROUND_HALF_EVEN) -> Decimal:
        """Return the price on the grid, by a rounding mode of the decimal module."""
        return _to_grid(price, self.instrument.tick_size, "price", rounding)

    def round_quantity(self, quantity: Amount, rounding: str = ROUND_HALF_EVEN) -> Decimal:
        """Return the quantity on the grid, by a rounding mode of the decimal module."""
        return _to_grid(quantity, self.instrument.lot_size, "quantity", rounding)

    def round_mark(self, price: Amount, rounding: str = ROUND_HALF_EVEN) -> Decimal:
        """Return the price on the grid of marks, by a rounding mode of the decimal module.

        Raises decimal.Inexact where a mark unit is not a finite decimal.
        """
        instrument = self.instrument
        unit = EXACT.divide(instrument.tick_size, instrument.mark_units_per_tick)
        return _to_grid(price, unit, "mark price", rounding)

    def _named(self, field: str) -> str:
        return f"{field} of {self.instrument.symbol}"


def _to_grid(value: Amount, step: Decimal, field: str, rounding: str) -> Decimal:
    """Return the multiple of step that value rounds to."""
    number = exact(value, field)
    steps = QUOTIENT.divide(number, step).to_integral_value(rounding=rounding)
    return EXACT.multiply(steps, step)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    assets: dict[str, Asset]
    by_symbol: dict[str, Listing]
    by_id: dict[int, Listing]
    is_outdated: bool = False


class Catalogue:
    """All instruments and assets, by symbol. Safe to share between threads.

    Steps and assets of an instrument never change, so that a catalogue that is out of date lacks
    new instruments and shows old limits, but never converts wrongly.
    """

    def __init__(self) -> None:
        self._snapshot: _Snapshot | None = None
        self._writing = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        """Whether it holds what the service listed."""
        return self._snapshot is not None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of all instruments, sorted; none before loading."""
        return tuple(sorted(self._snapshot.by_symbol)) if self._snapshot else ()

    def listing(self, symbol: str) -> Listing:
        """Return the instrument with its conversions. Raises UnknownSymbol."""
        snapshot = self._loaded()
        try:
            return snapshot.by_symbol[symbol]
        except KeyError:
            pass
        if not isinstance(symbol, str):
            raise TypeError(f"symbol is {symbol!r} ({type(symbol).__name__}), not a str")
        if snapshot.is_outdated:
            raise CatalogueIncompleteError(f"no {symbol!r} in it")
        upper = {known.upper(): known for known in snapshot.by_symbol}
        close = difflib.get_close_matches(symbol.upper(), upper, n=3, cutoff=0.5)
        matches = tuple(upper[name] for name in close)
        raise UnknownSymbol(symbol, matches, len(snapshot.by_symbol))

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument. Raises UnknownSymbol."""
        return self.listing(symbol).instrument

    def listing_of(self, instrument_id: int) -> Listing | None:
        """Return the instrument of an id, or None if it is not in the catalogue."""
        return self._loaded().by_id.get(instrument_id)

    def asset(self, symbol: str) -> Asset | None:
        """Return the asset, or None if it is not in the catalogue."""
        return self._loaded().assets.get(symbol)

    def scale_of(self, asset_id: int) -> int:
        """Return the scale of an asset by its id. Raises CatalogueIncompleteError."""
        for asset in self._loaded().assets.values():
            if asset.asset_id == asset_id:
                return asset.scale
        raise CatalogueIncompleteError(f"no asset {asset_id} in it")

    def load(self, assets: Iterable[Asset], instruments: Iterable[Instrument]) -> None:
        """Hold exactly these. The assets must contain those of all instruments."""
        snapshot = _index({asset.symbol: asset for asset in assets}, instruments)
        with self._writing:
            self._snapshot = snapshot

    def add_asset(self, asset: Asset) -> Asset:
        """Add an asset, and return it. Before loading nothing is kept."""
        with self._writing:
            old = self._snapshot
            if old is not None:
                assets = {**old.assets, asset.symbol: asset}
                self._snapshot = replace(old, assets=assets)
        return asset

    def add_instrument(self, instrument: Instrument) -> Instrument:
        """Add or replace an instrument, and return it. Before loading nothing is kept."""
        with self._writing:
            old = self._snapshot
            if old is not None and not _assets_of(instrument) <= old.assets.keys():
                self._snapshot = replace(old, is_outdated=True)
            elif old is not None:
                listing = _list(instrument, old.assets)
                self._snapshot = replace(
                    old,
                    by_symbol={**old.by_symbol, instrument.symbol: listing},
                    by_id={**old.by_id, instrument.instrument_id: listing},
                )
        return instrument

    def _loaded(self) -> _Snapshot:
        if self._snapshot is None:
            raise CatalogueIncompleteError("nothing was loaded yet")
        return self._snapshot


def _assets_of(instrument: Instrument) -> set[str]:
    return {instrument.settlement_asset, *filter(None, [instrument.base_asset])}


def _list(instrument: Instrument, assets: dict[str, Asset]) -> Listing:
    base = instrument.base_asset
    scale = assets[instrument.settlement_asset].scale
    return Listing(instrument, scale, assets[base].scale if base else 0)


def _index(assets: dict[str, Asset], instruments: Iterable[Instrument]) -> _Snapshot:
    by_symbol = {instrument.symbol: _list(instrument, assets) for instrument in instruments}
    by_id = {listing.instrument.instrument_id: listing for listing in by_symbol.values()}
    return _Snapshot(assets, by_symbol, by_id)
