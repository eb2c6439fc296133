"""Settings of the service.

They come from defaults, a TOML file, the environment and flags, each over the one before. A
setting is one field of Settings: its name is the key in the file, RISKD_<NAME> in the environment
and --<name> as a flag. Mistakes raise SettingsError, which names the setting, the value, the bound
and where the value came from. Environment variables that are no setting are left alone, because
others own some of them (Kubernetes sets RISKD_SERVICE_HOST for a service called riskd).
"""

import argparse
import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

ENVIRONMENT_PREFIX = "RISKD_"
CONFIG_VARIABLE = "RISKD_CONFIG"
# Of commands that talk to a service.
TLS_CA_VARIABLE = "RISKD_TLS_CA"
TLS_CERTIFICATE_VARIABLE = "RISKD_TLS_CERTIFICATE"
TLS_KEY_VARIABLE = "RISKD_TLS_KEY"
TOKEN_FILE_VARIABLE = "RISKD_TOKEN_FILE"
_OTHER_VARIABLES = (
    CONFIG_VARIABLE,
    TLS_CA_VARIABLE,
    TLS_CERTIFICATE_VARIABLE,
    TLS_KEY_VARIABLE,
    TOKEN_FILE_VARIABLE,
)
LISTENER_ADDRESSES_MAX = 8
# Memory of the native listener for requests and replies that are not small; threads share it.
LISTENER_BUFFERED_BYTES = 64 << 20

Kind = Literal["integer", "boolean", "text", "list"]
Value = int | bool | str | tuple[str, ...]

_KINDS: dict[object, Kind] = {
    int: "integer",
    bool: "boolean",
    str: "text",
    tuple[str, ...]: "list",
}
_BOOLEANS = {"true": True, "false": False}
_CPU = re.compile(r"[0-9]{1,3}|10[01][0-9]|102[0-3]", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class SettingsError(ValueError):
    """A setting is not valid: names the setting, the value, the bound and the origin."""


def _setting(
    default: Value,
    doc: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Return a dataclass field that carries what the loader, the flags and the docs need."""
    return dataclasses.field(
        default=default,
        metadata={
            "doc": doc,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "secret": secret,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. Immutable: a change is a restart."""

    control_address: str = _setting(
        "127.0.0.1:50051",
        "Address of the control server, host:port; port 0 takes a free one.",
    )
    listener_addresses: tuple[str, ...] = _setting(
        ("127.0.0.1:50052",),
        "Addresses of the native listener, each host:port, [IPv6]:port or unix:path; port 0 takes "
        "a free one, none at all turns it off.",
    )
    certificate_file: str = _setting(
        "",
        "Certificate chain (PEM), for TLS on all addresses but Unix sockets; read again on SIGHUP, "
        "as key_file and client_ca_file are.",
    )
    key_file: str = _setting("", "Private key (PEM) of certificate_file, without a password.")
    client_ca_file: str = _setting(
        "", "Authorities (PEM): only clients with a certificate of one of them are let in."
    )
    identities_file: str = _setting(
        "",
        "Who may do what (docs/security.md); read again on SIGHUP. Without it everybody who can "
        "connect may do everything.",
    )
    allow_off_loopback_without_identities: bool = _setting(
        False,
        "Accept addresses that other machines can reach, although everybody who can connect may do "
        "everything.",
    )
    allow_plaintext_off_loopback: bool = _setting(
        False,
        "Accept addresses that other machines can reach, although nothing is encrypted or "
        "authenticated.",
    )
    listener_connections_max: int = _setting(
        1024,
        "Connections of the native listener; one more is closed at once.",
        minimum=1,
        maximum=65_536,
    )
    listener_connections_per_address_max: int = _setting(
        256,
        "Of those, connections from one IPv4 address or IPv6 network of 64 bits; Unix sockets are "
        "not counted.",
        minimum=1,
        maximum=65_536,
    )
    listener_idle_ms_max: int = _setting(
        0,
        "How long a connection of the native listener may be without a call before it is asked to "
        "end; 0 = for ever.",
        minimum=0,
        maximum=1 << 40,
    )
    listener_age_ms_max: int = _setting(
        0,
        "Age, 10 % less or more, at which a connection of the native listener is asked to end, its "
        "calls first; 0 = none.",
        minimum=0,
        maximum=1 << 40,
    )
    listener_age_grace_ms: int = _setting(
        10_000,
        "How long calls and streams may go on after their connection was asked to end for its age; "
        "then they get UNAVAILABLE, and it is closed.",
        minimum=0,
        maximum=1 << 40,
    )
    listener_calls_max: int = _setting(
        4096,
        "Calls in work at the native listener; one more gets RESOURCE_EXHAUSTED.",
        minimum=1,
        maximum=1_000_000,
    )
    listener_threads: int = _setting(
        1,
        "Threads of the native listener; connections are spread over them, and they share its "
        "bounds in equal parts.",
        minimum=1,
        maximum=64,
    )
    listener_cpus: tuple[str, ...] = _setting(
        (),
        "Numbers of the CPUs that the native listener's threads stay on, one for each thread; "
        "none: the kernel chooses.",
    )
    listener_busy_poll_us: int = _setting(
        50,
        "How long a thread of the native listener looks for events before it sleeps, while they "
        "come at intervals up to twice that; 0 = it sleeps at once.",
        minimum=0,
        maximum=1_000_000,
    )
    listener_calls_per_timed: int = _setting(
        64,
        "Of the native listener's calls one in so many, at random, is timed stage by stage; "
        "0 = none.",
        minimum=0,
        maximum=1_000_000,
    )
    metrics_address: str = _setting(
        "127.0.0.1:50053",
        "Address of the metrics, host:port, http in plain text; port 0 takes a free one, empty "
        "turns it off.",
    )
    traces_endpoint: str = _setting(
        "",
        "Collector of OpenTelemetry that gets a span for each call of the control server, "
        "http://host:port or https://host:port (OTLP over gRPC); needs the extra riskd[traces]; "
        "empty = none.",
    )
    worker_threads: int = _setting(
        8, "Threads that answer calls of the control server.", minimum=1, maximum=256
    )
    concurrent_rpcs_max: int = _setting(
        1024,
        "Calls in work or waiting; one more gets RESOURCE_EXHAUSTED.",
        minimum=1,
        maximum=1_000_000,
    )
    receive_message_bytes_max: int = _setting(
        1 << 20,
        "Largest request; a larger one gets RESOURCE_EXHAUSTED.",
        minimum=64 << 10,
        maximum=64 << 20,
    )
    shutdown_grace_ms: int = _setting(
        5_000,
        "How long calls in flight may take to finish after SIGTERM.",
        minimum=0,
        maximum=600_000,
    )
    tick_interval_ms: int = _setting(
        50,
        "How often orders that have expired and leases that have ended are looked for.",
        minimum=1,
        maximum=60_000,
    )
    margin_levels_evaluated: bool = _setting(
        True, "Look for changes of margin levels in every tick, once levels are set."
    )
    level_slice_accounts: int = _setting(
        1024,
        "Accounts whose margin levels one tick looks at; the next goes on after them.",
        minimum=1,
        maximum=65_536,
    )
    risk_event_streams_max: int = _setting(
        64, "Open calls of WatchRiskEvents; one more is refused.", minimum=1, maximum=10_000
    )
    reflection: bool = _setting(True, "Serve gRPC reflection and channelz.")
    rulebooks: tuple[str, ...] = _setting((), "Rulebooks to load at start, by name or file.")
    durability: str = _setting(
        "machine",
        "What a reply survives: none = nothing is kept, process = written (end of the process), "
        "machine = synced to disk (loss of power).",
        choices=("none", "process", "machine"),
    )
    journal_directory: str = _setting(
        "riskd-journal", "Where every change is kept, unless durability is none."
    )
    journal_segment_bytes: int = _setting(
        256 << 20, "Largest file of the journal.", minimum=128 << 20, maximum=1 << 40
    )
    journal_buffer_bytes: int = _setting(
        8 << 20,
        "Each of two buffers of records on their way to disk.",
        minimum=2 << 20,
        maximum=64 << 20,
    )
    journal_wait_ms_max: int = _setting(
        10_000,
        "How long a call waits for room in the buffers before it gets RESOURCE_EXHAUSTED.",
        minimum=0,
        maximum=600_000,
    )
    journal_accept_differences: bool = _setting(
        False,
        "Start although this version would have given other replies than those in the journal.",
    )
    journal_archive_directory: str = _setting(
        "", "Where files go that no kept snapshot needs any more; removed if this is empty."
    )
    snapshot_every_bytes: int = _setting(
        1 << 30,
        "How much of the journal makes a new snapshot worth while; 0 = make none.",
        minimum=0,
        maximum=1 << 50,
    )
    snapshots_kept: int = _setting(
        2, "Snapshots that stay; a start takes the newest good one.", minimum=1, maximum=1000
    )
    log_level: str = _setting(
        "info", "Least severe log record written.", choices=("debug", "info", "warning", "error")
    )
    accounts_max: int = _setting(65_536, "Room for accounts.", minimum=1, maximum=16_777_216)
    positions_max: int = _setting(262_144, "Room for positions.", minimum=1, maximum=67_108_864)
    orders_max: int = _setting(262_144, "Room for working orders.", minimum=1, maximum=67_108_864)
    instruments_max: int = _setting(4_096, "Room for instruments.", minimum=1, maximum=1_048_576)
    schedules_max: int = _setting(1_024, "Room for margin schedules.", minimum=1, maximum=1_048_576)
    gateways_max: int = _setting(
        256,
        "Room for gateways: each that ever sent an order, or was halted.",
        minimum=1,
        maximum=65_536,
    )
    balances_max: int = _setting(
        100_000,
        "Room for balances of other assets than the accounts' own.",
        minimum=1,
        maximum=16_777_216,
    )
    firms_max: int = _setting(4_096, "Room for firms.", minimum=1, maximum=1_048_576)
    limits_max: int = _setting(65_536, "Room for limits.", minimum=1, maximum=16_777_216)
    holdings_max: int = _setting(
        65_536,
        "Room for the sums of firms and parent accounts, one for each instrument they hold.",
        minimum=1,
        maximum=16_777_216,
    )
    answer_bytes: int = _setting(
        2 << 20,
        "Room for a gateway's remembered answers to orders, and as much again for those to "
        "executions, in whole 16 bytes; the oldest go first.",
        minimum=64 << 10,
        maximum=4 << 30,
    )

    def __post_init__(self) -> None:
        """Check what needs more than one value."""
        if len(self.listener_addresses) > LISTENER_ADDRESSES_MAX:
            raise SettingsError(
                f"listener_addresses has {len(self.listener_addresses)} addresses: "
                f"must have at most {LISTENER_ADDRESSES_MAX}"
            )
        self._check_cpus()
        self._check_largest_request()
        if bool(self.certificate_file) != bool(self.key_file):
            raise SettingsError("certificate_file and key_file must both be set, or neither")
        if self.client_ca_file and not self.certificate_file:
            raise SettingsError("client_ca_file needs a certificate_file")
        self._check_reach("control_address", self.control_address)
        for address in self.listener_addresses:
            if not address.startswith("unix:"):
                self._check_reach("listener_addresses", address)
        if self.metrics_address:
            host, _ = parse_address(self.metrics_address, "metrics_address")
            if not (self.allow_plaintext_off_loopback or is_loopback(host)):
                raise SettingsError(
                    f"metrics_address {self.metrics_address!r} is not loopback and has no TLS: "
                    "use 127.0.0.1 or set allow_plaintext_off_loopback = true"
                )
        if self.traces_endpoint:
            self._check_traces()

    def _check_largest_request(self) -> None:
        # A connection has at most half of what is free, while a request grows.
        bytes_max = LISTENER_BUFFERED_BYTES // self.listener_threads // 2
        if self.listener_addresses and self.receive_message_bytes_max > bytes_max:
            raise SettingsError(
                f"receive_message_bytes_max {self.receive_message_bytes_max} with "
                f"{self.listener_threads} listener_threads: must be at most {bytes_max}, half of "
                f"what each thread has of the native listener's {LISTENER_BUFFERED_BYTES} bytes"
            )

    def _check_cpus(self) -> None:
        for cpu in self.listener_cpus:
            if not _CPU.fullmatch(cpu):
                raise SettingsError(f"listener_cpus has {cpu!r}: must be a CPU's number, 0 to 1023")
        if self.listener_cpus and len(self.listener_cpus) != self.listener_threads:
            raise SettingsError(
                f"listener_cpus has {len(self.listener_cpus)} CPUs for "
                f"{self.listener_threads} listener_threads: must have one for each"
            )

    def _check_traces(self) -> None:
        scheme, found, address = self.traces_endpoint.partition("://")
        if scheme not in ("http", "https") or not found:
            raise SettingsError(
                f"traces_endpoint is {self.traces_endpoint!r}: must be http://host:port or "
                "https://host:port"
            )
        host, port = parse_address(address, "traces_endpoint")
        if port == 0:
            raise SettingsError(f"traces_endpoint is {self.traces_endpoint!r}: port must not be 0")
        if scheme == "http" and not (self.allow_plaintext_off_loopback or is_loopback(host)):
            raise SettingsError(
                f"traces_endpoint {self.traces_endpoint!r} is not loopback and has no TLS: "
                "use https or set allow_plaintext_off_loopback = true"
            )

    def _check_reach(self, name: str, address: str) -> None:
        """Refuse what other machines can read, or do, without more ado."""
        host, _ = parse_address(address, name)
        if is_loopback(host):
            return
        where = f"{name} {address!r} is not loopback and there is no"
        if not self.certificate_file:
            if self.identities_file:
                raise SettingsError(
                    f"{where} TLS, so that tokens of identities_file could be read on their way: "
                    "set certificate_file or use 127.0.0.1"
                )
            if not self.allow_plaintext_off_loopback:
                raise SettingsError(
                    f"{where} TLS: "
                    "set certificate_file, use 127.0.0.1 or set allow_plaintext_off_loopback = true"
                )
        elif not (self.identities_file or self.allow_off_loopback_without_identities):
            raise SettingsError(
                f"{where} identities_file: "
                "set it, use 127.0.0.1 or set allow_off_loopback_without_identities = true"
            )

    def security_of(self, address: str, version: str) -> str:
        """Return who can read what is sent to an address, and who is let in there.

        version is that of TLS, where it is used.
        """
        if self.certificate_file and not address.startswith("unix:"):
            if self.client_ca_file:
                return f"TLS {version}, clients with a certificate of {self.client_ca_file}"
            return f"TLS {version}, any client"
        return reach_of(address)


@dataclass(frozen=True, slots=True)
class Specification:
    """What is known of one setting."""

    name: str
    kind: Kind
    default: Value
    doc: str
    minimum: int | None
    maximum: int | None
    choices: tuple[str, ...]
    secret: bool

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Its flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def bound(self) -> str:
        """What a value must be, in words."""
        if self.kind == "integer":
            return f"integer, {self.minimum} to {self.maximum}"
        if self.kind == "boolean":
            return "true or false"
        if self.kind == "list":
            return "list of texts"
        return " or ".join(self.choices) if self.choices else "text"

    def show(self, value: Value) -> str:
        """Return the value as it is written in the file; a secret is masked."""
        if self.secret and value:
            return '"********"'
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple):
            return "[" + ", ".join(f'"{item}"' for item in value) + "]"
        return f'"{value}"' if isinstance(value, str) else str(value)

    def fail(self, value: object, origin: str) -> SettingsError:
        """Return the error for a value that is out of bounds."""
        shown = "********" if self.secret else repr(value)
        return SettingsError(f"{self.name} is {shown} ({origin}): must be {self.bound}")

    def fits(self, value: int) -> bool:
        """Return whether an integer is within the bounds."""
        return (self.minimum is None or value >= self.minimum) and (
            self.maximum is None or value <= self.maximum
        )

    def offers(self, value: str) -> bool:
        """Return whether a text is one of the choices, or there are none."""
        return not self.choices or value in self.choices

    def check(self, value: object, origin: str) -> Value:
        """Return a typed value if it is of the right type and within its bounds."""
        if self.kind == "list" and isinstance(value, (list, tuple)):
            if all(isinstance(item, str) and item for item in value):
                return tuple(value)
        elif self.kind == "boolean" and isinstance(value, bool):
            return value
        elif self.kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
            if self.fits(value):
                return value
        elif self.kind == "text" and isinstance(value, str) and self.offers(value):
            return value
        raise self.fail(value, origin)

    def parse(self, text: str, origin: str) -> Value:
        """Return the value of a text from the environment or a flag; lists are comma-separated."""
        value: object = text
        if self.kind == "integer" and _INTEGER.fullmatch(text):
            value = int(text)
        elif self.kind == "boolean":
            value = _BOOLEANS.get(text, text)
        elif self.kind == "list":
            value = [item.strip() for item in text.split(",")] if text else []
        return self.check(value, origin)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, where each came from, and what looked like a setting but is none."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def effective_lines(self) -> list[str]:
        """Return one line a setting: name = value, and its origin as a comment."""
        pairs = [
            (f"{item.name} = {item.show(getattr(self.settings, item.name))}", item.name)
            for item in specifications()
        ]
        width = max(len(text) for text, _ in pairs)
        return [f"{text:<{width}}  # {self.origins[name]}" for text, name in pairs]


def specifications() -> list[Specification]:
    """Return all settings in the order of the class."""
    return [
        Specification(
            name=field.name,
            kind=_KINDS[field.type],
            default=cast(Value, field.default),
            **field.metadata,
        )
        for field in dataclasses.fields(Settings)
    ]


def parse_address(address: str, name: str = "control_address") -> tuple[str, int]:
    """Return host and port of "host:port" or "[IPv6]:port", the value of the setting so named."""
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise SettingsError(
            f"{name} is {address!r}: must be host:port, port 0 to 65535, IPv6 as [::1]:50051"
        )
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return "host:port", or "[IPv6]:port"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reach_of(address: str) -> str:
    """Return who can read what is sent in plain text to an address."""
    if address.startswith("unix:") or is_loopback(parse_address(address)[0]):
        return "plain text, this machine only"
    return "PLAIN TEXT, NOT AUTHENTICATED, other machines can reach it"


def load(
    *,
    path: str | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Value | None] | None = None,
) -> LoadedSettings:
    """Return the settings of a file (path, or RISKD_CONFIG), the environment and flags.

    Flags that are None were not given. Raises SettingsError.
    """
    environment = os.environ if environment is None else environment
    by_name = {item.name: item for item in specifications()}
    values: dict[str, Value] = {name: item.default for name, item in by_name.items()}
    origins = dict.fromkeys(by_name, "default")

    path = path if path is not None else environment.get(CONFIG_VARIABLE) or None
    if path is not None:
        for name, value in _read_file(path).items():
            origin = f"file {path}"
            if name not in by_name:
                raise SettingsError(f"{name} ({origin}) is no setting{_did_you_mean(name)}")
            values[name] = by_name[name].check(value, origin)
            origins[name] = origin

    for name, item in by_name.items():
        if item.variable in environment:
            origin = f"environment {item.variable}"
            values[name] = item.parse(environment[item.variable], origin)
            origins[name] = origin

    for name, given in (flags or {}).items():
        if given is not None:
            origin = f"flag {by_name[name].flag}"
            parse, check = by_name[name].parse, by_name[name].check
            values[name] = parse(given, origin) if isinstance(given, str) else check(given, origin)
            origins[name] = origin

    try:
        settings = Settings(**cast(dict[str, Any], values))
    except SettingsError as error:
        name = str(error).partition(" ")[0]
        raise SettingsError(f"{error} (from {origins[name]})") from None
    return LoadedSettings(settings, origins, tuple(_warnings(environment, by_name)))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --config and one flag a setting. Values stay text: load() parses them for all sources."""
    group = parser.add_argument_group(
        "settings", "Each is also a key of the TOML file and a variable RISKD_<NAME>."
    )
    group.add_argument(
        "--config", metavar="FILE", help="TOML file with settings (default: $RISKD_CONFIG)"
    )
    for item in specifications():
        shown = f"{item.doc} (default: {item.show(item.default)})".replace("%", "%%")
        if item.kind == "boolean":
            group.add_argument(
                item.flag, action=argparse.BooleanOptionalAction, default=None, help=shown
            )
        else:
            group.add_argument(item.flag, metavar=item.kind.upper(), help=shown)


def from_arguments(arguments: argparse.Namespace) -> LoadedSettings:
    """Return the settings of parsed command-line arguments, the environment and the file."""
    flags = {item.name: getattr(arguments, item.name) for item in specifications()}
    return load(path=arguments.config, flags=flags)


def reference_table() -> str:
    """Return the Markdown table of all settings that docs/services.md shows."""
    lines = ["| setting | default | bound | what it does |", "|---|---|---|---|"]
    lines += [
        f"| `{item.name}` | `{item.show(item.default)}` | {item.bound} | {item.doc} |"
        for item in specifications()
    ]
    return "\n".join(lines)


def _read_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not valid TOML: {error}") from None


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name, [item.name for item in specifications()], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _warnings(environment: Mapping[str, str], by_name: Mapping[str, Specification]) -> list[str]:
    variables = [item.variable for item in by_name.values()]
    lines = []
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in (*variables, *_OTHER_VARIABLES):
            close = difflib.get_close_matches(name, variables, n=1, cutoff=0.85)
            if close:
                lines.append(f"environment variable {name} is no setting; did you mean {close[0]}?")
    return lines
