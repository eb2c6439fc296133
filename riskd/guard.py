"""Who calls, and whether they may: the identities file as the doors use it.

The native listener reads the same table by itself (riskd.core.permits); the words of its refusals
are those here, so that both doors answer with the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from riskd.core.engine import (
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    DeniedError,
)
from riskd.core.permits import Permission, Permits
from riskd.denials import CONTROL, NATIVE, Denial, Denials
from riskd.identities import (
    KEY_COMMON_NAME,
    KEY_SPIFFE,
    KEY_SUBJECT,
    KEY_TOKEN,
    Identity,
    Key,
    load,
    name_key,
)
from riskd.roles import RULES, Role, Rule, Touches
from riskd.services.errors import (
    ACCOUNT_NOT_PERMITTED,
    CERTIFICATE_UNKNOWN,
    CREDENTIALS_MISSING,
    GATEWAY_NOT_PERMITTED,
    METHOD_NOT_PERMITTED,
    TOKEN_UNKNOWN,
    RefusalError,
)
from riskd.settings import Settings
from riskd.v1 import types_pb2

AUTHORIZATION_KEY = "authorization"
AUTHORIZATION_BYTES_MAX = 160
SCHEME = "bearer "

# DenialReason of permits.pxd.
_REASONS = {
    1: CREDENTIALS_MISSING,
    2: CERTIFICATE_UNKNOWN,
    3: TOKEN_UNKNOWN,
    4: METHOD_NOT_PERMITTED,
    5: ACCOUNT_NOT_PERMITTED,
    6: GATEWAY_NOT_PERMITTED,
}
_SUBJECTS = {ACCOUNT_NOT_PERMITTED: "account_id", GATEWAY_NOT_PERMITTED: "gateway_id"}
_TEXTS = {
    CREDENTIALS_MISSING: "the call has neither a bearer token nor a certificate",
    CERTIFICATE_UNKNOWN: "the client's certificate is of no identity",
    TOKEN_UNKNOWN: "the bearer token is of no identity",
}
_METHOD_STREAM_ORDERS = 34  # Of session.pyx.
# Bits of a native permit.
_NUMBERS = {
    "riskd.v1.OrderRiskService/CheckOrder": METHOD_CHECK_ORDER,
    "riskd.v1.OrderRiskService/ReportExecution": METHOD_REPORT_EXECUTION,
    "riskd.v1.OrderRiskService/GetReservation": METHOD_GET_RESERVATION,
    "riskd.v1.MarketDataService/ReportMarks": METHOD_REPORT_MARKS,
    "riskd.v1.OrderRiskService/CheckAmendment": METHOD_CHECK_AMENDMENT,
    "riskd.v1.OrderRiskService/BatchCheckOrders": METHOD_BATCH_CHECK_ORDERS,
    "riskd.v1.OrderRiskService/StreamOrders": _METHOD_STREAM_ORDERS,
}
_METHODS = {number: name for name, number in _NUMBERS.items()}
_NO_RULE = Rule(frozenset(), Touches.NOTHING)

Metadata = Iterable[tuple[str, str | bytes]]


class Known:
    """The identities of one load of the file; never changes."""

    def __init__(self, identities: Sequence[Identity], permissions: Sequence[Permission]) -> None:
        # By a part of the hash, which is compared as a whole in constant time.
        self._by_key: dict[tuple[int, bytes], list[tuple[bytes, Identity, Permission]]] = {}
        self.count = len(identities)
        for identity, permission in zip(identities, permissions, strict=True):
            for kind, hash_ in identity.keys:
                same = self._by_key.setdefault((kind, hash_[:8]), [])
                same.append((hash_, identity, permission))

    def find(self, key: Key) -> tuple[Identity, Permission] | None:
        kind, hash_ = key
        for known, identity, permission in self._by_key.get((kind, hash_[:8]), ()):
            if hmac.compare_digest(known, hash_):
                return identity, permission
        return None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody shows who makes a call."""

    peer: str
    token: Key | None
    # A header that is no bearer token was sent.
    is_malformed: bool
    certificate: tuple[Key, ...]
    # The name in the certificate, empty if there is none.
    shown: str

    @classmethod
    def of(
        cls,
        peer: str,
        metadata: Metadata,
        auth_context: Callable[[], Mapping[str, Iterable[bytes]]],
    ) -> Credentials:
        """Return those of a call of grpcio; a token, if there is one, says alone who calls."""
        sent = [value for key, value in metadata if key == AUTHORIZATION_KEY]
        if sent:
            value = sent[0]
            is_token = (
                len(sent) == 1
                and isinstance(value, str)
                and len(SCHEME) < len(value) <= AUTHORIZATION_BYTES_MAX
                and value[: len(SCHEME)].lower() == SCHEME
            )
            if not is_token:
                return cls(peer, None, True, (), "")
            token = str(value)[len(SCHEME) :].encode()
            return cls(peer, (KEY_TOKEN, hashlib.sha256(token).digest()), False, (), "")
        names = auth_context()
        spiffe, subject, common = (
            tuple(names.get(name, ()))
            for name in ("peer_spiffe_id", "x509_subject", "x509_common_name")
        )
        # A certificate with a SPIFFE id is known by it alone.
        if spiffe:
            keys: tuple[Key, ...] = (name_key(KEY_SPIFFE, spiffe[0]),)
        else:
            keys = tuple(name_key(KEY_SUBJECT, each) for each in subject[:1])
            keys += tuple(name_key(KEY_COMMON_NAME, each) for each in common[:1])
        shown = b""
        if "x509_pem_cert" in names:
            shown = (*spiffe, *subject, b"a certificate without a name")[0]
        return cls(peer, None, False, keys, shown.decode("utf-8", "replace")[:127])


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may be made, by whom."""

    guard: Guard
    known: Known
    identity: Identity
    permission: Permission
    rule: Rule
    method: str
    credentials: Credentials

    def denied(self, error: DeniedError) -> RefusalError:
        """Return the refusal of what the engine denied."""
        return self._refusal(_REASONS[error.reason], str(error.value))

    def is_current(self) -> bool:
        """Return whether the identities are still those by which it was given."""
        return self.guard.holds(self.known)

    def check(self, request: Message) -> None:
        """Refuse a request that names what the identity may not touch, or touches more."""
        touches = self.rule.touches
        identity = self.identity
        if touches is Touches.NOTHING or touches is Touches.ORDERS:
            return
        named = dict.fromkeys(_accounts_of(request))
        for account_id in named:
            if not identity.may_touch(account_id):
                raise self._refusal(ACCOUNT_NOT_PERMITTED, str(account_id))
        if touches is Touches.OWN_ORDERS and self.rule.is_for_owner_only(identity.roles):
            gateway_id: int = getattr(request, "gateway_id")  # noqa: B009
            if not identity.may_act_as(gateway_id):
                raise self._refusal(GATEWAY_NOT_PERMITTED, str(gateway_id))
        elif not named and touches is not Touches.NAMED and not identity.may_touch_all():
            raise self._refusal(ACCOUNT_NOT_PERMITTED, "all")

    def again(self) -> Admission:
        """Return it by the identities of now, or refuse: for streams, which outlive a reload."""
        return self.guard.admit(self.method, self.credentials)

    def _refusal(self, reason: str, subject: str = "") -> RefusalError:
        return self.guard.deny(reason, self.method, self.credentials, self.identity.name, subject)


class Guard:
    """The identities of a file, and what is denied. Thread-safe.

    permits is the table that native threads read.
    """

    def __init__(self, path: str, denials: Denials | None = None) -> None:
        """Load the file. Raises IdentitiesError."""
        self._path = path
        self.denials = denials or Denials()
        self.permits = Permits()
        self._known = self._load()

    @property
    def count(self) -> int:
        """How many identities there are."""
        return self._known.count

    def reload(self) -> None:
        """Read the file again, for the next requests. Raises IdentitiesError; nothing changes."""
        self._known = self._load()

    def _load(self) -> Known:
        identities = load(self._path)
        rows = [
            (each.name, *_bits(each.roles), each.accounts, each.gateways, each.keys)
            for each in identities
        ]
        return Known(identities, self.permits.replace(rows))

    def holds(self, known: Known) -> bool:
        """Return whether these are the identities of now."""
        return self._known is known

    def admit_call(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Admission:
        """Return that a call of the control server may be made, or refuse."""
        metadata = context.invocation_metadata() or ()
        credentials = Credentials.of(context.peer(), metadata, context.auth_context)
        return self.admit(method, credentials)

    def admit(self, method: str, credentials: Credentials) -> Admission:
        """Return that somebody may call a method ("riskd.v1.X/Y"), or refuse."""
        known = self._known
        keys = credentials.certificate if credentials.token is None else (credentials.token,)
        found = next((found for key in keys if (found := known.find(key)) is not None), None)
        if found is None:
            if credentials.is_malformed or credentials.token is not None:
                reason = TOKEN_UNKNOWN
            else:
                reason = CERTIFICATE_UNKNOWN if credentials.shown else CREDENTIALS_MISSING
            raise self.deny(reason, method, credentials)
        identity, permission = found
        rule = RULES.get(method, _NO_RULE)
        if not rule.roles & identity.roles:
            raise self.deny(METHOD_NOT_PERMITTED, method, credentials, identity.name)
        return Admission(self, known, identity, permission, rule, method, credentials)

    def deny(
        self,
        reason: str,
        method: str,
        credentials: Credentials,
        identity: str = "",
        subject: str = "",
    ) -> RefusalError:
        """Count a denial, and return what its caller gets."""
        now_ns = time.time_ns()
        shown = credentials.shown if reason == CERTIFICATE_UNKNOWN else ""
        self.denials.add(
            Denial(
                CONTROL, reason, identity, method, now_ns, now_ns, credentials.peer, subject, shown
            )
        )
        return refusal(reason, method, identity, subject)

    def look(self) -> None:
        """Take over what native threads denied; to be called again and again."""
        rows, unseen = self.permits.take_denials()
        for count, first_ns, time_ns, reason, method, value, identity, peer, shown in rows:
            name = _REASONS[reason]
            subject = str(value) if name in _SUBJECTS else ""
            self.denials.add(
                Denial(
                    NATIVE, name, identity, _METHODS[method], time_ns, first_ns, peer, subject,
                    shown, count,
                )
            )  # fmt: skip
        if unseen:
            self.denials.add_unseen(NATIVE, unseen)
        self.denials.summarise()

    def end(self) -> None:
        """Take over and log what is left."""
        self.look()
        self.denials.summarise(now=True)


def check_guarded(settings: Settings, guard: Guard | None) -> None:
    """Refuse to open a door without the identities that the settings have."""
    if bool(settings.identities_file) != (guard is not None):
        raise ValueError(
            f"identities_file is {settings.identities_file!r}: the door must have a guard of it"
        )


def refusal(reason: str, method: str, identity: str = "", subject: str = "") -> RefusalError:
    """Return the refusal of a denied call: the words that session.pyx has too."""
    if reason in _TEXTS:
        return RefusalError(reason, _TEXTS[reason], method=method)
    metadata: dict[str, Any] = {"identity": identity, "method": method}
    if reason == METHOD_NOT_PERMITTED:
        return RefusalError(reason, f"identity {identity} may not call {method}", **metadata)
    field = _SUBJECTS[reason]
    does = "touch" if field == "account_id" else "act as"
    text = f"identity {identity} may not {does} {field} {subject}"
    if subject == "all":
        text = f"identity {identity} may not touch all accounts, and the request names none"
    return RefusalError(reason, text, **{field: subject}, **metadata)


def _bits(roles: frozenset[Role]) -> tuple[int, int]:
    """Return the methods of the native listener that roles may call: of all, of own gateways."""
    methods = own = 0
    for name, number in _NUMBERS.items():
        rule = RULES[name]
        if rule.is_for_owner_only(roles):
            own |= 1 << number
        elif rule.roles & roles:
            methods |= 1 << number
    return methods, own


def _accounts_of(message: Message) -> Iterator[int]:
    """Yield every account that a request names, however deep."""
    if getattr(message, "scope", None) == types_pb2.LIMIT_SCOPE_ACCOUNT and (
        scope_id := getattr(message, "scope_id", 0)
    ):
        yield scope_id
    for field, value in message.ListFields():
        if field.name == "account_id" or field.name.endswith("_account_id"):
            yield value
        elif field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                yield from _accounts_of(each)
