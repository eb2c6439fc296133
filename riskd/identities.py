"""The file of identities: who there is, how each is known, and what each may touch.

```toml
[[identity]]
name = "gateway-3"
roles = ["gateway"]
spiffe_ids = ["spiffe://example.com/gateway/3"]   # or subjects, common_names, token_hashes
accounts = ["1-999", 2000]                        # or "all"
gateways = [3]                                    # of the role gateway
```

What is not said is not permitted. Mistakes raise IdentitiesError, which names the file, the
identity, the key, the value and the bound.
"""

import hashlib
import itertools
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskd.roles import Role
from riskd.settings import SettingsError

FILE_BYTES_MAX = 4 << 20
IDENTITIES_MAX = 4096
KEYS_MAX = 8
RANGES_MAX = 1024
ACCOUNT_MAX = 2**64 - 1
GATEWAY_MAX = 2**32 - 1
ALL = "all"

KEY_TOKEN = 1
KEY_SPIFFE = 2
KEY_SUBJECT = 3
KEY_COMMON_NAME = 4

Ranges = tuple[tuple[int, int], ...]
# What somebody is known by: a kind, and the SHA-256 of the token or of the certificate's name.
Key = tuple[int, bytes]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", re.ASCII)
_CERTIFICATE_KEYS = {
    "spiffe_ids": (KEY_SPIFFE, re.compile(r"spiffe://[!-~]{1,2039}", re.ASCII), "spiffe://..."),
    "subjects": (KEY_SUBJECT, re.compile(r"[ -~]{1,1024}", re.ASCII), "as RFC 2253 writes it"),
    "common_names": (KEY_COMMON_NAME, re.compile(r"[^\x00-\x1f\x7f]{1,256}"), "1 to 256 letters"),
}
_KNOWN = (*_CERTIFICATE_KEYS, "token_hashes")
_FIELDS = ("name", "roles", *_KNOWN, "accounts", "gateways")


class IdentitiesError(SettingsError):
    """The file of identities is not valid: names what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who may call."""

    name: str
    roles: frozenset[Role]
    keys: tuple[Key, ...]
    accounts: Ranges
    gateways: Ranges

    def may_touch(self, account_id: int) -> bool:
        """Return whether an account is one of its own."""
        return any(first <= account_id <= last for first, last in self.accounts)

    def may_touch_all(self) -> bool:
        """Return whether every account is."""
        return self.accounts == ((0, ACCOUNT_MAX),)

    def may_act_as(self, gateway_id: int) -> bool:
        """Return whether a gateway is one of its own."""
        return any(first <= gateway_id <= last for first, last in self.gateways)


def token_hash(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def name_key(kind: int, name: bytes) -> Key:
    """Return the key of a name in a certificate."""
    return kind, hashlib.sha256(name).digest()


def load(path: str) -> tuple[Identity, ...]:
    """Return the identities of a file. Raises IdentitiesError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise IdentitiesError(f"identities_file {path!r}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise IdentitiesError(f"identities_file {path!r}: must have at most {FILE_BYTES_MAX} bytes")
    if mode & stat.S_IWOTH:
        raise IdentitiesError(
            f"identities_file {path!r} has mode {mode:o}: nobody but its owner and group may write"
        )
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # Of TOML and of UTF-8.
        raise IdentitiesError(f"identities_file {path!r} is not valid TOML: {error}") from None
    try:
        return _read(document)
    except ValueError as mistake:  # Also of a number with more digits than Python writes out.
        raise IdentitiesError(f"identities_file {path!r}: {mistake}") from None


class _MistakeError(ValueError):
    """What is wrong, without the file's name."""


def _read(document: dict[str, Any]) -> tuple[Identity, ...]:
    unknown = sorted(document.keys() - {"identity"})
    if unknown:
        raise _MistakeError(f"{unknown[0]} is no key: must be [[identity]] tables")
    tables = document.get("identity")
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise _MistakeError("identity: must be [[identity]] tables, at least one")
    if len(tables) > IDENTITIES_MAX:
        raise _MistakeError(f"{len(tables)} identities: must be at most {IDENTITIES_MAX}")
    identities = tuple(_read_identity(number, each) for number, each in enumerate(tables, 1))
    owners: dict[str | Key, str] = {}
    for identity in identities:
        if identity.name in owners:
            raise _MistakeError(f"name {identity.name!r} is there twice")
        owners[identity.name] = identity.name
        for key in identity.keys:
            owner = owners.setdefault(key, identity.name)
            if owner != identity.name:
                raise _MistakeError(
                    f"{owner} and {identity.name} are known by the same {_KINDS[key[0]]}"
                )
    return identities


_KINDS = {
    KEY_TOKEN: "token hash",
    KEY_SPIFFE: "SPIFFE id",
    KEY_SUBJECT: "subject",
    KEY_COMMON_NAME: "common name",
}


def _read_identity(number: int, table: dict[str, Any]) -> Identity:
    where = f"identity {number}"
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _MistakeError(
            f"{where}: name is {name!r}: must be 1 to 63 letters, digits, '.', '_', '@' or '-', "
            "the first a letter or digit"
        )
    where = f"identity {number} ({name})"
    unknown = sorted(table.keys() - set(_FIELDS))
    if unknown:
        raise _MistakeError(f"{where}: {unknown[0]} is no key: must be one of {', '.join(_FIELDS)}")
    roles = frozenset(_read_role(where, each) for each in _read_list(where, table, "roles", 1, 6))
    keys = _read_keys(where, table)
    if not keys:
        raise _MistakeError(f"{where}: must be known by one of {', '.join(_KNOWN)}")
    needs_accounts = bool(roles - {Role.FEED})
    if needs_accounts != ("accounts" in table):
        raise _MistakeError(
            f"{where}: accounts is not there: must be a list or {ALL!r}"
            if needs_accounts
            else f"{where}: accounts is there: the role feed touches none"
        )
    if (Role.GATEWAY in roles) != ("gateways" in table):
        raise _MistakeError(
            f"{where}: gateways is not there: the role gateway needs it"
            if Role.GATEWAY in roles
            else f"{where}: gateways is there: only the role gateway has it"
        )
    accounts: Ranges = ((0, ACCOUNT_MAX),)
    if table.get("accounts") != ALL:
        accounts = _read_ranges(where, table, "accounts", ACCOUNT_MAX)
    return Identity(
        name, roles, keys, accounts, _read_ranges(where, table, "gateways", GATEWAY_MAX)
    )


def _read_list(
    where: str, table: dict[str, Any], key: str, count_min: int, count_max: int
) -> Sequence[Any]:
    value = table.get(key, [])
    if not isinstance(value, list) or not count_min <= len(value) <= count_max:
        shown = f"{len(value)} values" if isinstance(value, list) else repr(value)
        raise _MistakeError(
            f"{where}: {key} is {shown}: must be a list of {count_min} to {count_max} values"
        )
    return value


def _read_role(where: str, value: object) -> Role:
    if not isinstance(value, str) or value not in tuple(Role):
        raise _MistakeError(f"{where}: roles has {value!r}: must be one of {', '.join(Role)}")
    return Role(value)


def _read_keys(where: str, table: dict[str, Any]) -> tuple[Key, ...]:
    keys: list[Key] = []
    for field, (kind, pattern, bound) in _CERTIFICATE_KEYS.items():
        for value in _read_list(where, table, field, 0, KEYS_MAX):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise _MistakeError(f"{where}: {field} has {value!r}: must be {bound}")
            keys.append(name_key(kind, value.encode()))
    for value in _read_list(where, table, "token_hashes", 0, KEYS_MAX):
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            # Not shown: it may be the token itself.
            raise _MistakeError(
                f"{where}: token_hashes has a value that is no hash: must be 64 lower-case "
                "hexadecimal digits, as riskd token prints"
            )
        keys.append((KEY_TOKEN, bytes.fromhex(value)))
    if len(set(keys)) < len(keys):
        raise _MistakeError(f"{where}: is known by the same thing twice")
    return tuple(keys)


def _read_ranges(where: str, table: dict[str, Any], key: str, number_max: int) -> Ranges:
    count_min = 1 if key in table else 0
    ranges = sorted(
        _read_range(where, key, each, number_max)
        for each in _read_list(where, table, key, count_min, RANGES_MAX)
    )
    for (_, last), (first, _) in itertools.pairwise(ranges):
        if first <= last:
            raise _MistakeError(f"{where}: {key} has {first} twice")
    return tuple(ranges)


def _read_range(where: str, key: str, value: object, number_max: int) -> tuple[int, int]:
    found = None
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        found = _RANGE.fullmatch(str(value))
    if found is not None:
        first = int(found[1])
        last = int(found[2] or found[1])
        if 1 <= first <= last <= number_max:
            return first, last
    raise _MistakeError(
        f"{where}: {key} has {value!r}: must be a number or 'first-last', 1 to {number_max}"
    )
