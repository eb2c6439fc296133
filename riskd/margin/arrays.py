"""Numbers and arrays of them for the compiled core, and errors that say what is wrong.

Arguments broadcast like NumPy's. Scalars give scalars, arrays give arrays of the broadcast shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Figure = float | NDArray[np.float64]
Whole = int | NDArray[np.int64]
Kinds = str | Sequence[str] | NDArray[np.str_] | bool | Sequence[bool] | NDArray[np.bool_]
_INT64_MAX = 2**63 - 1

# For functions that check what they computed: a result too large is an error there, not a warning.
overflow_is_checked = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True, slots=True)
class Bound:
    """low to high, finite; low itself and 0 may be left out."""

    words: str
    low: float = -math.inf
    high: float = math.inf
    low_is_in: bool = True
    zero_is_in: bool = True

    def holds(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return for each value whether it is in bounds."""
        holds = (self.low <= values) if self.low_is_in else (self.low < values)
        holds &= values <= self.high
        if not self.zero_is_in:
            holds &= values != 0
        return np.asarray(holds & np.isfinite(values))


FINITE = Bound("must be finite")
ABOVE_ZERO = Bound("must be finite and above 0", low=0, low_is_in=False)
FROM_ZERO = Bound("must be finite and not below 0", low=0)
NOT_ZERO = Bound("must be finite and not 0", zero_is_in=False)


def within(low: float, high: float) -> Bound:
    """Return the bound low to high."""
    return Bound(f"must be {low} to {high}", low, high)


def above(low: float, high: float) -> Bound:
    """Return the bound above low and at most high."""
    return Bound(f"must be above {low} and at most {high}", low, high, low_is_in=False)


@dataclass(frozen=True, slots=True)
class Field:
    """An argument, its name in errors, and the bound that the compiled core checks too."""

    name: str
    value: ArrayLike
    bound: Bound


@dataclass(frozen=True, slots=True)
class Floats:
    """Flat contiguous arrays of one length, and the shape of the results."""

    fields: tuple[Field, ...]
    arrays: list[NDArray[np.float64]]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def check(self, index: int) -> None:
        """Raise ValueError for the element at which the core stopped; -1: it did not."""
        if index >= 0:
            raise _fault(self.fields, [array[index] for array in self.arrays], self.shape, index)

    def require(self) -> None:
        """Raise ValueError for the first element out of its bound."""
        bad = [
            int(np.argmin(holds))
            for field, array in zip(self.fields, self.arrays, strict=True)
            if not (holds := field.bound.holds(array)).all()
        ]
        if bad:
            self.check(min(bad))

    def computed(self, flat: NDArray[np.float64]) -> Figure:
        """Return the results. Raises ValueError for the first that does not fit a double."""
        if not (fits := np.isfinite(flat)).all():
            self.check(int(np.argmin(fits)))
        return self.shaped(flat)

    def ask(
        self, question: Callable[..., int], *before: NDArray[np.uint8] | bool, rows: int = 0
    ) -> NDArray[np.float64]:
        """Return what a function of the core fills: one array, or a row a result.

        Raises ValueError for the element at which it stopped.
        """
        out = np.empty((rows, self.size) if rows else self.size, dtype=np.float64)
        self.check(question(*before, *self.arrays, out))
        return out

    def shaped(self, flat: NDArray[np.float64]) -> Figure:
        """Return the results: one number where all arguments are."""
        return float(flat[0]) if self.shape == () else flat.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Integers:
    """Flat contiguous arrays of one length, and the shape of the results."""

    fields: tuple[Field, ...]
    arrays: list[NDArray[np.int64]]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def check(self, index: int) -> None:
        """Raise ValueError for the element at which the core stopped; -1: it did not."""
        if index >= 0:
            raise _fault(self.fields, [array[index] for array in self.arrays], self.shape, index)

    def require(self) -> None:
        """Raise ValueError for the first element out of its bound."""
        bad = [
            int(np.argmin(holds))
            for field, array in zip(self.fields, self.arrays, strict=True)
            if not (holds := field.bound.holds(array)).all()
        ]
        if bad:
            self.check(min(bad))

    def ask(
        self, question: Callable[..., int], *before: NDArray[np.uint8] | bool, rows: int = 0
    ) -> NDArray[np.int64]:
        """Return what a function of the core fills: one array, or a row a result.

        Raises ValueError for the element at which it stopped.
        """
        out = np.empty((rows, self.size) if rows else self.size, dtype=np.int64)
        self.check(question(*before, *self.arrays, out))
        return out

    def shaped(self, flat: NDArray[np.int64]) -> Whole:
        """Return the results: one number where all arguments are."""
        return int(flat[0]) if self.shape == () else flat.reshape(self.shape)


def floats(*fields: Field, kinds: NDArray[np.uint8] | None = None) -> Floats:
    """Return the fields' values as floats. Raises ValueError for what is not a number."""
    arrays = [_as_array(field, np.float64) for field in fields]
    parts = _broadcast(fields, arrays, kinds)
    return Floats(fields, [_flat(part) for part in parts], parts[0].shape)


def integers(*fields: Field, kinds: NDArray[np.uint8] | None = None) -> Integers:
    """Return the fields' values as 64-bit integers. Raises ValueError for what is not one."""
    arrays = [_as_array(field, np.int64) for field in fields]
    parts = _broadcast(fields, arrays, kinds)
    return Integers(fields, [_flat(part) for part in parts], parts[0].shape)


_CALLS = ("call", "CALL", "Call", "c", "C")
_PUTS = ("put", "PUT", "Put", "p", "P")


def calls(option_type: Kinds) -> NDArray[np.uint8]:
    """Return 1 for calls and 0 for puts: "call" or "c", "put" or "p", or booleans, True for calls.

    Booleans are the fast way for many options. Raises ValueError for another text.
    """
    kinds = np.asarray(option_type)
    if kinds.dtype.kind == "b":
        return kinds.astype(np.uint8)
    if kinds.dtype.kind != "U":
        raise ValueError(f"option_type {short(option_type)} must be 'call' or 'put'")
    is_call = np.zeros(kinds.shape, dtype=np.bool_)
    is_put = np.zeros(kinds.shape, dtype=np.bool_)
    for spelling in _CALLS:
        is_call |= kinds == spelling
    for spelling in _PUTS:
        is_put |= kinds == spelling
    if (unknown := ~(is_call | is_put)).any():
        raise ValueError(f"option_type {str(kinds[unknown][0])!r} must be 'call' or 'put'")
    return is_call.astype(np.uint8)


def flags(kinds: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the flags broadcast to the shape of the results, flat and contiguous."""
    return np.ascontiguousarray(np.broadcast_to(kinds, shape)).reshape(-1)


def refuse_masked(name: str, value: ArrayLike) -> None:
    """Raise ValueError if an element is masked: what lies under a mask is not a figure."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked elements")


def _as_array(field: Field, kind: type[np.float64] | type[np.int64]) -> NDArray[Any]:
    refuse_masked(field.name, field.value)
    whole = kind is np.int64
    raw = np.asarray(field.value)
    # No elements have no kind.
    if raw.size == 0:
        return raw.astype(kind)
    # Decimals, and integers beyond 64 bits, are objects to NumPy.
    allowed = "iu" if whole else "iuf"
    if raw.dtype.kind == "O" and not whole:
        try:
            return raw.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{field.name} {short(field.value)} must be a number") from None
    if raw.dtype.kind not in allowed:
        if whole and raw.dtype.kind == "O" and all(isinstance(item, int) for item in raw.flat):
            raise ValueError(f"{field.name} {short(field.value)} does not fit 64 bits")
        noun = "a whole number" if whole else "a number"
        raise ValueError(f"{field.name} {short(field.value)} must be {noun}")
    if whole and raw.dtype.kind == "u" and (raw > _INT64_MAX).any():
        raise ValueError(f"{field.name} {short(field.value)} does not fit 64 bits")
    return raw.astype(kind, copy=False)


def _broadcast(
    fields: Sequence[Field], arrays: Sequence[NDArray[Any]], kinds: NDArray[np.uint8] | None
) -> Sequence[NDArray[Any]]:
    extra = [] if kinds is None else [kinds]
    try:
        return np.broadcast_arrays(*arrays, *extra)[: len(arrays)]
    except ValueError:
        shapes = ", ".join(
            f"{field.name} {array.shape}" for field, array in zip(fields, arrays, strict=True)
        )
        raise ValueError(f"the shapes do not broadcast: {shapes}") from None


def _flat(part: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(part).reshape(-1)


def _fault(
    fields: Sequence[Field], values: Sequence[Any], shape: tuple[int, ...], index: int
) -> ValueError:
    """Return the error that names the first field out of its bound, its value and the bound."""
    place = "" if shape == () else f" (element {index})"
    for field, value in zip(fields, values, strict=True):
        if not field.bound.holds(np.asarray(value)):
            return ValueError(f"{field.name} {value} {field.bound.words}{place}")
    shown = ", ".join(f"{field.name} {value}" for field, value in zip(fields, values, strict=True))
    return ValueError(f"a result is too large: {shown}{place}")
