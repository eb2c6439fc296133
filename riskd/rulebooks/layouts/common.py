"""How layouts find their way in an answer."""

from collections.abc import Mapping, Sequence

from riskd.rulebooks.schema import (
    INVERSE_FUTURE,
    INVERSE_PERPETUAL,
    LINEAR_FUTURE,
    LINEAR_PERPETUAL,
)


def listed(found: object, key: str) -> Mapping[str, object]:
    """Return a list of objects by the name that each has under a key. Raises ValueError."""
    if not isinstance(found, list) or not found:
        raise ValueError("must have a list of symbols")
    markets: dict[str, object] = {}
    for row in found:
        name = row.get(key) if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise ValueError(f"has an entry without {key}")
        if name in markets:
            raise ValueError(f"{name}: is there twice")
        markets[name] = row
    return markets


def list_of(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def inside(document: object, *path: str) -> object:
    """Return what is at a path of keys, any of which may be left out."""
    for key in path:
        if isinstance(document, dict) and key in document:
            document = document[key]
    return document


def has(document: object, path: Sequence[str], *keys: str) -> bool:
    """Return whether the first entry at a path has all keys."""
    found = inside(document, *path)
    if isinstance(found, dict):
        found = list(found.values())
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, dict) and all(key in first for key in keys)


def contract_kind(*, is_inverse: bool, is_dated: bool) -> str:
    if is_inverse:
        return INVERSE_FUTURE if is_dated else INVERSE_PERPETUAL
    return LINEAR_FUTURE if is_dated else LINEAR_PERPETUAL
