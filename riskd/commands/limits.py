"""`riskd limits`: list, set, raise and remove limits of a service, and prove that they hold."""

import argparse
import sys
import time
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, cast

import grpc

from riskd import limits, limits_file
from riskd.commands.connection import add_connection_arguments, open_channel
from riskd.commands.output import print_table
from riskd.commands.service import PAGE_SIZE, Service
from riskd.limits_file import SCOPES, LimitRule
from riskd.v1 import account_service_pb2, types_pb2
from riskd.v1 import limit_service_pb2 as pb
from riskd.v1.account_service_pb2_grpc import AccountServiceStub
from riskd.v1.limit_service_pb2_grpc import LimitServiceStub

if TYPE_CHECKING:
    from riskd.core.engine import Engine

EPILOG = """examples:
  riskd limits list --account 7
  riskd limits set --account 7 --kind position_lots_max --instrument BTC-PERP --value 2.5
  riskd limits set --gateway 3 --kind order_rate_max --value 100 --burst 20
  riskd limits set --file limits.toml --comment "new desk"
  riskd limits raise --account 7 --kind daily_loss_max --value 20000 --hours 4
  riskd limits remove --account 7 --kind denied --instrument BTC-PERP
  riskd limits prove --file limits.toml --rulebook textbook
  riskd limits prove --journal riskd-journal

docs/limits.md has the kinds and their units. A value counts money in units of the settlement
asset; lots and ticks are quantities and prices with --instrument, and whole lots and ticks without.
prove works on a copy in memory: it breaks each limit with one order and shows what stops it. Exit
status: 0 done (prove: every limit stopped its order), 1 refused or failed, 2 wrong usage."""

NS_PER_HOUR = 3_600 * 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a command for each thing to do with limits."""
    parser.epilog = EPILOG
    commands = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    listing = _command(commands, "list", "show limits, their use and what remains")
    _add_owner(listing, is_required=False)
    setting = _command(commands, "set", "set a limit, or all of a file")
    _add_owner(setting, is_required=False)
    _add_kind(setting, is_required=False)
    setting.add_argument("--value", help="left out for denied and allowed")
    setting.add_argument("--burst", type=int, help="of the two rates")
    setting.add_argument("--soft", action="store_true", help="warn, and do not stop the order")
    setting.add_argument("--file", metavar="FILE", help="TOML file of limits instead")
    _add_reason(setting)
    raising = _command(commands, "raise", "let a looser value count for some hours")
    _add_owner(raising)
    _add_kind(raising)
    raising.add_argument("--value", required=True)
    raising.add_argument(
        "--hours", required=True, help="from now, up to 168; then the limit counts again"
    )
    _add_reason(raising)
    removing = _command(commands, "remove", "remove a limit")
    _add_owner(removing)
    _add_kind(removing)
    _add_reason(removing)
    proving = commands.add_parser("prove", help="break each limit of a copy with one order")
    copied = proving.add_mutually_exclusive_group(required=True)
    copied.add_argument("--file", metavar="FILE", help="TOML file of limits")
    copied.add_argument(
        "--journal", metavar="DIRECTORY", help="journal of a service; it is only read"
    )
    proving.add_argument(
        "--rulebook",
        action="append",
        default=[],
        metavar="NAME",
        help="with --file: what has the instruments; may be repeated",
    )
    proving.add_argument(
        "--asset", metavar="SYMBOL", help="with --file: asset of the accounts (default: the first)"
    )


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary)
    add_connection_arguments(parser)
    return parser


def _add_owner(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    owner = parser.add_mutually_exclusive_group(required=is_required)
    for scope in SCOPES:
        owner.add_argument(f"--{scope}", type=int, metavar="ID")


def _add_kind(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    parser.add_argument("--kind", required=is_required, help="as in docs/limits.md")
    parser.add_argument("--instrument", metavar="SYMBOL", help="(default: all instruments)")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--comment", default="", help="why, for the audit")
    parser.add_argument("--actor", help="who, for the audit (default: this user)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; return 0 if it is done."""
    try:
        if arguments.action == "prove":
            return _prove(arguments)
        with open_channel(arguments) as channel:
            service = _Service(channel, arguments)
            actions = {"list": _list, "set": _set, "raise": _raise, "remove": _remove}
            actions[arguments.action](service, arguments)
            return 0
    except grpc.RpcError as error:
        call = cast(grpc.Call, error)  # What a stub raises is both; the type stubs do not say so.
        text = f"{arguments.address}: {call.code().name}: {call.details()}"
    except (OSError, ValueError) as error:
        text = str(error)
    print(f"riskd limits: {text}", file=sys.stderr)
    return 1


# --- a running service ----------------------------------------------------------------------------


class _Service(Service):
    """The calls of a running service that are about limits."""

    def __init__(self, channel: grpc.Channel, arguments: argparse.Namespace) -> None:
        super().__init__(channel, arguments)
        self.limits = LimitServiceStub(channel)
        self.symbols = {row.instrument_id: row.symbol for row in self.instruments.values()}

    def key(self, rule: LimitRule) -> pb.LimitKey:
        """Return the name of a limit. Raises LimitsFileError for an unknown symbol."""
        if rule.instrument and rule.instrument not in self.instruments:
            raise rule.refuse("instrument", rule.instrument, "the service has no such instrument")
        return pb.LimitKey(
            scope=rule.scope,
            scope_id=rule.scope_id,
            instrument_id=self.instrument_id(rule.instrument) if rule.instrument else 0,
            kind=rule.kind,
        )

    def has_parent(self, account_id: int) -> bool:
        """Return whether an account is a sub-account."""
        request = account_service_pb2.GetAccountRequest(account_id=account_id)
        reply = self.call(AccountServiceStub(self.channel).GetAccount, request)
        return bool(reply.account.parent_account_id)


def _list(service: _Service, arguments: argparse.Namespace) -> None:
    scope, scope_id = 0, 0
    for name, number in SCOPES.items():
        if getattr(arguments, name) is not None:
            scope, scope_id = number, getattr(arguments, name)
    rows: list[Sequence[str]] = []
    token = ""
    while True:
        request = pb.ListLimitsRequest(
            scope=types_pb2.LimitScope.ValueType(scope),
            scope_id=scope_id,
            page_size=PAGE_SIZE,
            page_token=token,
        )
        page = service.call(service.limits.ListLimits, request)
        rows += [_cells(limit, service.symbols) for limit in page.limits]
        token = page.next_page_token
        if not token:
            break
    header = ("level", "limit", "instrument", "value", "use", "remaining", "used", "action")
    print_table(header, rows, "<<<>>>><")


def _cells(limit: pb.Limit, symbols: dict[int, str]) -> Sequence[str]:
    key = limit.key
    scope = types_pb2.LimitScope.Name(key.scope).removeprefix("LIMIT_SCOPE_").lower()
    value = limit.value
    if limit.burst:
        value = f"{value}/s, burst {limit.burst}"
    if limit.raised_value:
        value = f"{limit.raised_value} (raised from {limit.value})"
    used = f"{Decimal(limit.utilisation):.1%}" if limit.utilisation else ""
    return (
        f"{scope} {key.scope_id}",
        limits.kind_name(key.kind),
        symbols.get(key.instrument_id, "") if key.instrument_id else "all",
        value,
        "unknown" if limit.use_unknown else limit.use,
        limit.remaining,
        used,
        types_pb2.LimitAction.Name(limit.action).removeprefix("LIMIT_ACTION_").lower(),
    )


def _set(service: _Service, arguments: argparse.Namespace) -> None:
    if arguments.file is not None:
        given = [name for name in ("kind", *SCOPES) if getattr(arguments, name) is not None]
        if given:
            raise ValueError(f"give --file or --{given[0]}, not both")
        rules = limits_file.load(arguments.file)
    else:
        rules = [_rule(arguments, limits_file.SOFT if arguments.soft else limits_file.HARD)]
    # All names first: a file that cannot be set as a whole is better not begun.
    keys = {rule.name: service.key(rule) for rule in rules}

    def depth(rule: LimitRule) -> int:
        is_account = rule.scope == types_pb2.LIMIT_SCOPE_ACCOUNT
        return 1 + service.has_parent(rule.scope_id) if is_account else 0

    done = 0
    # A level before those under it, which may not be looser.
    for rule in sorted(rules, key=depth):
        try:
            service.call(
                service.limits.SetLimit,
                pb.SetLimitRequest(
                    key=keys[rule.name],
                    value=rule.value,
                    burst=rule.burst,
                    action=rule.action,
                    comment=arguments.comment,
                ),
            )
        except grpc.RpcError as error:
            details = cast(grpc.Call, error).details()
            raise ValueError(f"{rule.at}: {details} ({done} of {len(rules)} are set)") from None
        done += 1
    print(f"{done} limit{'' if done == 1 else 's'} set")


def _raise(service: _Service, arguments: argparse.Namespace) -> None:
    rule = _rule(arguments, limits_file.HARD)
    until_ns = time.time_ns() + _duration_ns(arguments.hours)
    reply = service.call(
        service.limits.RaiseLimit,
        pb.RaiseLimitRequest(
            key=service.key(rule),
            value=arguments.value,
            until_time_ns=until_ns,
            comment=arguments.comment,
        ),
    )
    print(f"{reply.limit.raised_value} instead of {reply.limit.value} for {arguments.hours} hours")


def _duration_ns(hours: str) -> int:
    try:
        duration_ns = int(Decimal(hours) * NS_PER_HOUR)
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError(f"hours is {hours!r}: must be a number above 0, up to 168") from None
    if not 0 < duration_ns <= 168 * NS_PER_HOUR:
        raise ValueError(f"hours is {hours!r}: must be a number above 0, up to 168")
    return duration_ns


def _remove(service: _Service, arguments: argparse.Namespace) -> None:
    rule = _rule(arguments, limits_file.HARD)
    request = pb.RemoveLimitRequest(key=service.key(rule), comment=arguments.comment)
    service.call(service.limits.RemoveLimit, request)
    print("1 limit removed")


def _rule(arguments: argparse.Namespace, action: str) -> LimitRule:
    """Return the limit that flags name, checked as one of a file. Raises LimitsFileError."""
    is_named = arguments.action != "set"
    table: dict[str, object] = {
        name: getattr(arguments, name)
        for name in (*SCOPES, "kind", "instrument")
        if getattr(arguments, name) is not None
    }
    if not is_named:
        table["action"] = action
        for name in ("value", "burst"):
            if getattr(arguments, name) is not None:
                table[name] = getattr(arguments, name)
    return limits_file.read_table(table, "limit", is_name_only=is_named)


# --- a copy ---------------------------------------------------------------------------------------


def _prove(arguments: argparse.Namespace) -> int:
    """Show a breaching order for each limit of a copy; return 0 if every limit stopped its."""
    # Imported late: the other actions need no compiled core.
    from riskd import limits_proof  # noqa: PLC0415
    from riskd.core.engine import Engine, ReplayError  # noqa: PLC0415
    from riskd.core.journal import JournalDamagedError  # noqa: PLC0415

    engine = Engine()
    if arguments.journal is not None:
        if arguments.rulebook or arguments.asset:
            raise ValueError("--rulebook and --asset go with --file: a journal has its own")
        try:
            replay = engine.recover(arguments.journal, accept_differences=True)
        except (JournalDamagedError, ReplayError) as error:
            raise ValueError(str(error)) from None
        now_ns = max(replay.time_ns, time.time_ns())
    else:
        now_ns = time.time_ns()
        _build(engine, arguments, now_ns)
    proofs = limits_proof.prove(engine, now_ns)
    if not proofs:
        raise ValueError("there are no limits to prove")
    rows = [(each.limit, each.order, each.reason, "ok" if each.ok else "NO") for each in proofs]
    print_table(("limit", "order", "reason", "ok"), rows, "<<<<")
    failed = sum(not each.ok for each in proofs)
    if failed:
        print(f"{failed} of {len(proofs)} limits did not stop their order")
    else:
        print(f"{len(proofs)} of {len(proofs)} limits stopped their order")
    return 1 if failed else 0


def _build(engine: "Engine", arguments: argparse.Namespace, now_ns: int) -> None:
    """Give an engine the instruments, accounts, firms and limits of a file."""
    from riskd.rulebooks import installer, loader  # noqa: PLC0415

    if not arguments.rulebook:
        raise ValueError("--file needs --rulebook: it has the instruments of the orders")
    rules = limits_file.load(arguments.file)
    for name in arguments.rulebook:
        installer.apply(loader.load(name), engine)
    assets = {row.symbol: row.asset_id for row in engine.assets()}
    if arguments.asset is not None and arguments.asset not in assets:
        raise ValueError(f"asset is {arguments.asset!r}: must be one of {', '.join(assets)}")
    asset_id = assets[arguments.asset] if arguments.asset else next(iter(assets.values()))
    for scope, scope_id in {(rule.scope, rule.scope_id) for rule in rules}:
        if scope == types_pb2.LIMIT_SCOPE_FIRM:
            engine.create_firm(scope_id, asset_id)
        elif scope == types_pb2.LIMIT_SCOPE_ACCOUNT:
            engine.create_account(scope_id, asset_id, types_pb2.MARGIN_MODE_CROSS, 100, 0)
    limits_file.apply(rules, engine, now_ns)
