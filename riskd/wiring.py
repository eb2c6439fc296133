"""How the parts meet: settings to engine, rulebooks, services and server."""

import logging
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import cast

from prometheus_client import CollectorRegistry, ProcessCollector

from riskd.core.black import black76_greeks
from riskd.core.engine import Engine, ReplayError
from riskd.core.journal import JournalDamagedError, JournalFailedError
from riskd.core.monitor import Monitor
from riskd.explain import Explainer
from riskd.guard import Guard
from riskd.metrics.collector import RiskdCollector
from riskd.metrics.server import MetricsServer
from riskd.native import NativeDoor
from riskd.rulebooks import Rulebook, has_versions, installer, loader
from riskd.rulebooks.installer import RuleEngine
from riskd.rulebooks.versions import in_force_since
from riskd.server import ControlServer
from riskd.services.account import AccountService
from riskd.services.audit import AuditService
from riskd.services.backend import Backend
from riskd.services.changes import ChangeTrail, RecordedDefinitions, log_change
from riskd.services.control import ControlService
from riskd.services.instrument import InstrumentService
from riskd.services.limit import LimitService
from riskd.services.margin import MarginService
from riskd.services.market_data import add_market_data_service
from riskd.services.order_risk import add_order_risk_service
from riskd.services.risk_events import RiskEvents
from riskd.services.rules import RuleVersions, time_of
from riskd.services.ticker import ClockWatch, keep_time
from riskd.settings import Settings, SettingsError, reach_of
from riskd.snapshots import SnapshotKeeper, load_changes
from riskd.tracing import TraceInterceptor, build_provider
from riskd.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from riskd.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from riskd.v1.control_service_pb2_grpc import add_ControlServiceServicer_to_server
from riskd.v1.instrument_service_pb2_grpc import add_InstrumentServiceServicer_to_server
from riskd.v1.limit_service_pb2_grpc import add_LimitServiceServicer_to_server
from riskd.v1.margin_service_pb2_grpc import add_MarginServiceServicer_to_server

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Open beside connections: journal, snapshots, sockets and what libraries keep.
_FILES_BESIDE = 256

_logger = logging.getLogger("riskd.wiring")


def build_engine(settings: Settings) -> Engine:
    """Return the engine of build_audited_engine."""
    return build_audited_engine(settings)[0]


def build_audited_engine(settings: Settings) -> tuple[Engine, ChangeTrail]:
    """Return an engine of the configured sizes, and the changes that its journal has.

    It holds what the journal and the rulebooks give it.
    Raises SettingsError if it does not fit in memory, or the journal or a rulebook cannot be used.
    """
    try:
        engine = Engine(
            accounts_max=settings.accounts_max,
            positions_max=settings.positions_max,
            orders_max=settings.orders_max,
            instruments_max=settings.instruments_max,
            schedules_max=settings.schedules_max,
            gateways_max=settings.gateways_max,
            firms_max=settings.firms_max,
            limits_max=settings.limits_max,
            holdings_max=settings.holdings_max,
            balances_max=settings.balances_max,
            answer_bytes=settings.answer_bytes // 16 * 16,
        )
    except MemoryError as error:
        raise SettingsError(f"accounts_max to answer_bytes: {error}") from None
    trail = ChangeTrail(engine)
    if settings.durability != "none":
        engine.watch_replay(trail.replay)
        snapshot = _open_journal(settings, engine)
        engine.watch_replay(None)
        if snapshot is not None:
            load_changes(trail, snapshot)
    # Without a journal the time is the clock's of the server, which may be that of a recording.
    loaded_ns = time.time_ns() if settings.durability != "none" else 0
    for name, rulebook in zip(settings.rulebooks, _load_rulebooks(settings), strict=True):
        try:
            recorded = RecordedDefinitions(engine, trail, name, loaded_ns)
            at = time_of(time.time_ns()) if has_versions(rulebook) else None
            instruments = installer.apply(rulebook, cast(RuleEngine, recorded), at)
        except ValueError as error:  # RulebookError and ApplyError say which rule and why.
            raise SettingsError(f"rulebooks: {error}") from None
        for change in recorded.changes:
            log_change(change)
        _logger.info(
            "rulebook loaded", extra={"fields": {"name": name, "instruments": len(instruments)}}
        )
    return engine, trail


def _load_rulebooks(settings: Settings) -> list[Rulebook]:
    """Return the rulebooks of the settings. Raises SettingsError.

    One that is there twice is refused, and so are two that name the same schedule or instrument:
    the later one would be in force for the instruments of both.
    """
    found: list[Rulebook] = []
    owners: dict[tuple[str, str], str] = {}
    for at, name in enumerate(settings.rulebooks):
        if name in settings.rulebooks[:at]:
            raise SettingsError(f"rulebooks: {name} is there twice")
        try:
            rulebook = loader.load(name)
        except ValueError as error:  # RulebookError says which key and why.
            raise SettingsError(f"rulebooks: {error}") from None
        rules = [("schedule", rule.name) for rule in rulebook.schedules]
        rules += [("option_rule", rule.name) for rule in rulebook.option_rules]
        rules += [("instrument", rule.symbol) for rule in rulebook.instruments]
        for rule in dict.fromkeys(rules):
            owner = owners.setdefault(rule, name)
            if owner != name:
                both = f"{owner} and {name} both have the {rule[0]} {rule[1]}"
                raise SettingsError(f"rulebooks: {both}")
        found.append(rulebook)
    return found


def _open_journal(settings: Settings, engine: Engine) -> str | None:
    """Replay the journal and go on with it; return the snapshot that it began with."""
    start = time.monotonic()
    reported = start

    def report(records: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= 1:
            reported = time.monotonic()
            _logger.info("replaying the journal", extra={"fields": {"records": records}})

    try:
        replay = engine.open_journal(
            settings.journal_directory,
            durability="process" if settings.durability == "process" else "machine",
            segment_bytes=settings.journal_segment_bytes,
            buffer_bytes=settings.journal_buffer_bytes // 8 * 8,
            append_wait_ms_max=settings.journal_wait_ms_max,
            accept_differences=settings.journal_accept_differences,
            now_ns=time.time_ns(),
            progress=report,
        )
    except (JournalDamagedError, ReplayError, OSError, ValueError, MemoryError) as error:
        raise SettingsError(f"journal_directory: {error}") from None
    fields = {
        "directory": settings.journal_directory,
        "snapshot": replay.snapshot or "",
        "records": replay.records,
        "seconds": round(time.monotonic() - start, 3),
        "state_hash": engine.state_hash(),
    }
    _logger.info("journal opened", extra={"fields": fields})
    for reason in replay.refused_snapshots:
        _logger.warning("snapshot not used", extra={"fields": {"reason": reason}})
    if replay.torn is not None:
        _logger.warning("torn tail cut", extra={"fields": replay.torn._asdict()})
    if replay.differences:
        fields = {"count": replay.differences, "first_sequence": replay.first_difference}
        _logger.warning("replies differ from the recorded ones", extra={"fields": fields})
    return replay.snapshot


def build_server(
    settings: Settings,
    engine: Engine,
    clock: Callable[[], int] = time.time_ns,
    trail: ChangeTrail | None = None,
    guard: Guard | None = None,
) -> ControlServer:
    """Return a server of all services on an engine; clock gives nanoseconds since 1970.

    trail has the changes so far: those of build_audited_engine; none if it is None. guard says who
    may call; None: everybody.
    """
    backend = Backend(engine, clock, settings.journal_wait_ms_max / 1000, trail)
    explainer = None if engine.journal is None else Explainer(engine.journal.directory)
    events = RiskEvents(
        backend,
        slice_accounts=settings.level_slice_accounts,
        streams_max=settings.risk_event_streams_max,
    )

    tracing = None
    if settings.traces_endpoint:
        tracing = TraceInterceptor(build_provider(settings), Monitor(engine).revision)
    rulebooks = [rulebook for rulebook in _load_rulebooks(settings) if has_versions(rulebook)]
    versions = RuleVersions(backend, rulebooks)
    watch = ClockWatch(Monitor(engine).time_ns, clock)

    async def tick() -> None:
        if guard is not None:
            guard.look()
        watch.look()
        versions.apply_due()
        if settings.margin_levels_evaluated:
            await events.evaluate()

    async def background() -> None:
        try:
            await keep_time(backend.commits, clock, settings.tick_interval_ms / 1000, tick)
        finally:
            events.stop()
            if explainer is not None:
                explainer.stop()

    return ControlServer(
        settings,
        {
            "riskd.v1.OrderRiskService": lambda server: add_order_risk_service(server, backend),
            "riskd.v1.MarketDataService": lambda server: add_market_data_service(server, backend),
            "riskd.v1.AccountService": lambda server: add_AccountServiceServicer_to_server(
                AccountService(backend), server
            ),
            "riskd.v1.InstrumentService": lambda server: add_InstrumentServiceServicer_to_server(
                InstrumentService(backend), server
            ),
            "riskd.v1.MarginService": lambda server: add_MarginServiceServicer_to_server(
                MarginService(backend, events, black76_greeks), server
            ),
            "riskd.v1.ControlService": lambda server: add_ControlServiceServicer_to_server(
                ControlService(backend), server
            ),
            "riskd.v1.LimitService": lambda server: add_LimitServiceServicer_to_server(
                LimitService(backend), server
            ),
            "riskd.v1.AuditService": lambda server: add_AuditServiceServicer_to_server(
                AuditService(backend, explainer, None if guard is None else guard.denials), server
            ),
        },
        backend.commits,
        background,
        events.stop,
        guard,
        tracing,
    )


def build_guard(settings: Settings) -> Guard | None:
    """Return who may call, or None for everybody. Raises SettingsError for a bad file."""
    return Guard(settings.identities_file) if settings.identities_file else None


def rules_in_force(settings: Settings) -> Callable[[], list[tuple[str, str]]]:
    """Return what gives name and date of the version of each rulebook that is in force now."""
    rulebooks = _load_rulebooks(settings)

    def read() -> list[tuple[str, str]]:
        now = time_of(time.time_ns())
        starts = [(each.name, in_force_since(each, now)) for each in rulebooks]
        return [(name, "" if start is None else start.isoformat()) for name, start in starts]

    return read


def build_metrics(
    settings: Settings,
    engine: Engine,
    server: ControlServer,
    native: NativeDoor,
    guard: Guard | None,
) -> MetricsServer | None:
    """Return the metrics endpoint of a service, or None if none is wanted."""
    if not settings.metrics_address:
        return None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(
        RiskdCollector(
            Monitor(engine),
            native,
            server.meter,
            rulebooks=rules_in_force(settings),
            denials=dict if guard is None else guard.denials.counts,
        )
    )
    return MetricsServer(settings.metrics_address, registry)


def _metrics_line(metrics: MetricsServer | None) -> str:
    """Start the endpoint; return where it is and who can read it."""
    if metrics is None:
        return "metrics: none, metrics_address is empty"
    address = metrics.start()
    return f"metrics: http://{address}/metrics, {reach_of(address)}"


def build_keeper(settings: Settings) -> SnapshotKeeper | None:
    """Return what has snapshots made, or None if none are wanted."""
    if settings.durability == "none" or settings.snapshot_every_bytes == 0:
        return None
    return SnapshotKeeper(
        settings.journal_directory,
        every_bytes=settings.snapshot_every_bytes,
        kept=settings.snapshots_kept,
        archive_directory=settings.journal_archive_directory or None,
        accept_differences=settings.journal_accept_differences,
    )


@contextmanager
def serving(
    settings: Settings, engine: Engine, clock: Callable[[], int] = time.time_ns
) -> Iterator[int]:
    """Serve inside a with block; gives the port, stops gracefully at its end."""
    server = build_server(settings, engine, clock, guard=build_guard(settings))
    port = server.start()
    try:
        yield port
    finally:
        server.stop()


def _await_signal(file: int) -> None:
    """Wait until a signal came, to whichever thread; handlers run once this one goes on.

    Waiting for an Event, it would sleep on when the kernel gives the signal to another thread, as
    it does with the second of two.
    """
    select.select([file], [], [])
    with suppress(BlockingIOError):
        os.read(file, 4096)


def take_files(settings: Settings) -> None:
    """Let the process open as many files as it may; warn if connections can take them all.

    The journal's next segment is one too, and what fails there is for ever.
    """
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    connections_max = settings.listener_connections_max if settings.listener_addresses else 0
    if files_max < connections_max + _FILES_BESIDE:
        fields = {"files_max": files_max, "listener_connections_max": connections_max}
        _logger.warning(
            "connections can take all files that the process may open", extra={"fields": fields}
        )


def _said_of(guard: Guard | None, settings: Settings) -> str:
    """Return the line on who may do what."""
    if guard is None:
        return "identities: none, everybody who can connect may do everything"
    return f"identities: {guard.count} of {settings.identities_file}, all else is denied"


def serve_until_signal(settings: Settings, announce: Callable[[int, list[str]], None]) -> None:
    """Serve until SIGTERM or SIGINT; announce is called once calls are answered.

    It gets the port of the control server, and what there is to say about the native listener, the
    identities and the metrics.

    A second signal kills the process. Only the main thread can call this.
    """
    take_files(settings)
    guard = build_guard(settings)
    engine, trail = build_audited_engine(settings)
    server = build_server(settings, engine, trail=trail, guard=guard)
    native = NativeDoor(settings, engine, guard)
    asked_to_stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked_to_stop.set()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    previous = {number: signal.signal(number, on_signal) for number in _SIGNALS}

    def reload(what: str, read_again: Callable[[], None]) -> None:
        try:
            read_again()
        except SettingsError as error:
            _logger.error("not reloaded", extra={"fields": {"what": what, "reason": str(error)}})
        except Exception:
            # In a signal's handler, where it would end the service.
            _logger.exception("not reloaded", extra={"fields": {"what": what}})
        else:
            _logger.info("reloaded", extra={"fields": {"what": what}})

    def on_hangup(number: int, frame: FrameType | None) -> None:
        if guard is not None:
            reload("identities", guard.reload)
        if settings.certificate_file:
            reload("certificates of the control server", server.reload)
            if native.listener is not None:
                reload("certificates of the native listener", native.reload)

    previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, on_hangup)
    keeper = build_keeper(settings)
    metrics = build_metrics(settings, engine, server, native, guard)
    awoken, awakening = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous_wakeup = signal.set_wakeup_fd(awakening, warn_on_full_buffer=False)
    try:
        lines = [*native.start(), _said_of(guard, settings), _metrics_line(metrics)]
        announce(server.start(), lines)
        if keeper is not None:
            keeper.start()
        while not asked_to_stop.is_set():
            _await_signal(awoken)
        native.begin_stop()
        server.stop()
    finally:
        native.stop()
        if guard is not None:
            guard.end()
        if metrics is not None:
            metrics.stop()
        if keeper is not None:
            keeper.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_wakeup)
        os.close(awoken)
        os.close(awakening)
        with suppress(JournalFailedError):  # The log and every caller have it.
            engine.close_journal()
