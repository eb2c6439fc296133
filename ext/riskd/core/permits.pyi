"""Who may do what: identities by the keys that they are known by."""

from collections.abc import Sequence
from typing import Self

# First and last, both within.
_Ranges = Sequence[tuple[int, int]]
# (name, bits of methods, bits of methods as its own gateways only, accounts, gateways, keys); a key
# is a kind (1 token, 2 SPIFFE id, 3 subject, 4 common name) and a SHA-256.
_Row = tuple[str, int, int, _Ranges, _Ranges, Sequence[tuple[int, bytes]]]
# (count, first and last time since 1970 in ns, reason, method, and of the last: account or gateway,
# identity, peer, name shown).
_DenialRow = tuple[int, int, int, int, int, int, str, str, str]

class Permission:
    """What one identity may do, as it was when it was given; for Engine.submit."""

    def __new__(cls) -> Self: ...
    @property
    def name(self) -> str:
        """The identity's."""

class Permits:
    """All identities. Thread-safe; native threads take a new table in their next round."""

    def __new__(cls) -> Self: ...
    def replace(self, rows: Sequence[_Row]) -> list[Permission]:
        """Put other identities in the place of all; return what each of them may do.

        _Ranges must rise and be apart. Raises ValueError for a name of 0 or over 63 bytes, or a key
        that is no SHA-256, and nothing changes.
        """
    def take_denials(self) -> tuple[list[_DenialRow], int]:
        """Return what native threads denied since the last time, and how many beyond its bound.

        Denials of the same identity, method and reason are one row.
        """
