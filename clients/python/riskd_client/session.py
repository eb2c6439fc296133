"""What both clients share: their state, settings of the channel, methods made from Operations."""

import functools
import inspect
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import grpc

from riskd_client.catalogue import Catalogue
from riskd_client.operations import RPCS, Call, Operations, OrderIds

# Only what may be repeated is: reads, and changes that carry an identity. UNAVAILABLE only: any
# other status is an answer.
RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.02s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}

# Waits before a stream is opened again.
WATCH_WAIT_S_MIN = 0.05
WATCH_WAIT_S_MAX = 5.0

# Names who makes a change, for the service's audit.
ACTOR_KEY = "riskd-actor"
AUTHORIZATION_KEY = "authorization"
_TOKEN = re.compile(r"[!-~]{1,153}", re.ASCII)
_ACTOR = re.compile(r"[!-~]([ -~]{0,62}[!-~])?", re.ASCII)

ChannelOptions = tuple[tuple[str, Any], ...]


def channel_options(options: ChannelOptions) -> ChannelOptions:
    """Return options after the client's own, which they override."""
    config = {
        "methodConfig": [
            {
                "name": [
                    {"service": f"riskd.v1.{rpc.service}", "method": rpc.name}
                    for rpc in RPCS
                    if rpc.is_retried
                ],
                "retryPolicy": RETRY_POLICY,
            }
        ]
    }
    own = {
        "grpc.enable_retries": 1,
        "grpc.service_config": json.dumps(config),
        # A stream that waits would not notice a service that is gone without a word.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
    }
    return tuple({**own, **dict(options)}.items())


def backoff() -> Iterator[float]:
    """Yield waits in seconds, each twice the one before, up to a bound."""
    seconds = WATCH_WAIT_S_MIN
    while True:
        yield seconds
        seconds = min(2 * seconds, WATCH_WAIT_S_MAX)


class Session:
    """The state of a client that does not depend on how it makes its calls."""

    def __init__(
        self, gateway_id: int, timeout: float, actor: str | None, token: str | None
    ) -> None:
        named = () if actor is None else ((ACTOR_KEY, checked_actor(actor)),)
        shown = () if token is None else ((AUTHORIZATION_KEY, f"Bearer {checked_token(token)}"),)
        self._metadata = named + shown
        self._timeout = checked_timeout(timeout)
        self._operations = Operations(gateway_id, Catalogue(), OrderIds())

    @property
    def catalogue(self) -> Catalogue:
        """The instruments and assets as they were last loaded, with conversions and rounding."""
        return self._operations.catalogue

    @property
    def gateway_id(self) -> int:
        """The sender of this client's orders."""
        return self._operations.gateway_id

    def _seconds(self, call: Call[Any]) -> float:
        return self._timeout if call.timeout is None else checked_timeout(call.timeout)


def checked_actor(actor: str) -> str:
    """Return actor. Raises ValueError unless it is 1 to 64 printable ASCII characters.

    Blanks at an end would be lost on their way.
    """
    if not _ACTOR.fullmatch(actor):
        raise ValueError(
            f"actor {actor!r} is not 1 to 64 printable ASCII characters without blanks at an end"
        )
    return actor


def checked_token(token: str) -> str:
    """Return token. Raises ValueError, without showing it, unless it is printable ASCII."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("token is not 1 to 153 printable ASCII characters without blanks")
    return token


def check_reach(target: str, token: str | None, credentials: object) -> None:
    """Refuse to send a token in plain text to another machine. Raises ValueError."""
    if token is not None and credentials is None and not is_local(target):
        raise ValueError(
            f"target {target!r} is not this machine: a token is sent with credentials only"
        )


def is_local(target: str) -> bool:
    """Return whether a target can only be this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def tls_credentials(
    ca_file: str | PathLike[str],
    certificate_file: str | PathLike[str] | None = None,
    key_file: str | PathLike[str] | None = None,
) -> grpc.ChannelCredentials:
    """Return the credentials of a client that trusts the authorities of a file (PEM).

    certificate_file and key_file (PEM) are what it shows to a service that asks who it is.
    Raises OSError if a file cannot be read, ValueError if only one of these two is given.
    """
    if (certificate_file is None) != (key_file is None):
        raise ValueError("certificate_file and key_file must both be given, or neither")
    ca, certificate, key = (
        None if path is None else Path(path).read_bytes()
        for path in (ca_file, certificate_file, key_file)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def checked_timeout(seconds: float) -> float:
    """Return seconds. Raises ValueError unless above zero (a call always has a deadline)."""
    if not 0 < seconds < float("inf"):
        raise ValueError(f"timeout {seconds!r} s is not above zero and finite")
    return seconds


def describe(method: Callable[..., Any], plan: Callable[..., Any], container: Any = None) -> None:
    """Give a client's method the name, documentation and signature of the plan behind it.

    Where the plan returns Call[X] the method returns X, or container[X].
    """
    functools.update_wrapper(method, plan)
    signature = inspect.signature(plan)
    (result,) = get_args(signature.return_annotation)
    if container is not None:
        result = container[result]
    vars(method)["__signature__"] = signature.replace(return_annotation=result)
    method.__annotations__ = {**plan.__annotations__, "return": result}
    method.__qualname__ = plan.__name__
