"""Long seeded streams into the compiled engine and its slow twin: equal bytes, equal state.

RISKD_DIFFERENTIAL_SEEDS and RISKD_DIFFERENTIAL_COMMANDS say how many seeds and how many commands of
each; these come in rounds, for a market wears out: accounts lose what they have, contracts expire.
A failure prints the shortest stream that still fails.
"""

import copy
import os
import pprint
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from riskd.core.engine import Engine
from riskd.reference import Order, ReferenceEngine
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import order_risk_service_pb2 as orders_pb
from riskd.v1 import types_pb2 as t
from tests.differential.streams import BTC, CALL, ETH, SETTINGS_ROOMY, Command, Runner, Stream

SEEDS = int(os.environ.get("RISKD_DIFFERENTIAL_SEEDS", "20"))
COMMANDS = int(os.environ.get("RISKD_DIFFERENTIAL_COMMANDS", "2000"))
ROUND_COMMANDS = 5_000
SETUP_COMMANDS = 60
GREEKS = (
    "price_pico",
    "delta_pico",
    "gamma_pico",
    "vega_per_vol_point_pico",
    "theta_per_day_pico",
    "rho_per_point_pico",
)
LIQUIDATION = ("liquidation_status", "liquidation_price_ticks")


# --- Comparing ------------------------------------------------------------------------------------


def greeks_are_close(ours: Any, theirs: Any) -> bool:
    """Return whether two messages with Greeks agree to max(2, 1e-11 of the value) in each."""
    for name in GREEKS:
        exact = getattr(theirs, name)
        if abs(getattr(ours, name) - exact) > max(2, abs(exact) // 10**11):
            return False
    return True


def same_reply(command: Command, ours: Any, theirs: Any) -> bool:
    """Return whether outcomes are equal, but for the last digits of Greeks."""
    if ours == theirs:
        return True
    if not isinstance(ours, bytes) or not isinstance(theirs, bytes):
        return False
    # Replies that can hold Greeks, and where their decision is.
    replies: dict[Any, tuple[Any, str]] = {
        1: (orders_pb.CheckOrderResponse, ""),
        3: (orders_pb.GetReservationResponse, "first_answer"),
        5: (orders_pb.CheckAmendmentResponse, "order"),
    }
    if method_of(command) not in replies:
        return False
    reply, decision = replies[method_of(command)]
    messages: list[Any] = []
    for outcome in (ours, theirs):
        message = reply.FromString(outcome)
        if message.SerializeToString(deterministic=True) != outcome:
            return False
        messages.append(message)
    details = [(getattr(each, decision) if decision else each).detail for each in messages]
    if not all(detail.HasField("greeks") for detail in details):
        return False
    if not greeks_are_close(details[0].greeks, details[1].greeks):
        return False
    for detail in details:
        detail.greeks.Clear()
    return bool(messages[0] == messages[1])


def method_of(command: Command) -> int | None:
    """Return the number of a hot method, None for another method of the engine."""
    if command[0] == "raw":
        return int(command[1])
    numbers = {"check": 1, "execute": 2, "reservation": 3, "marks": 4, "amend": 5, "batch": 6}
    return (numbers | {"time": 7}).get(command[0])


def decision_in(command: Command, outcome: Any) -> orders_pb.CheckOrderResponse | None:
    """Return the decision on an order or on an amendment, None if the outcome is not one."""
    if not isinstance(outcome, bytes) or method_of(command) not in (1, 5):
        return None
    if method_of(command) == 1:
        return orders_pb.CheckOrderResponse.FromString(outcome)
    return orders_pb.CheckAmendmentResponse.FromString(outcome).order


def remembers_greeks(outcome: Any, command: Command) -> bool:
    decision = decision_in(command, outcome)
    return decision is not None and decision.detail.HasField("greeks")


def queries(index: int) -> list[Command]:
    """Return the commands that read everything, with a few searches for the largest order."""
    account_ids = [*range(1, 34), 1000]
    commands: list[Command] = [("summary", each) for each in account_ids]
    commands += [("positions", each) for each in account_ids]
    commands += [("balances", each) for each in account_ids]
    commands.append(("gateways",))
    commands += [("accounts", 0, 1000), ("assets",), ("schedules",), ("instruments",)]
    commands += [("trading_states",), ("working_reservations", 1, 0, 10**6), ("revision",)]
    commands += [("mark", each) for each in range(1, 20)]
    for number in range(4):
        choice = index // 100 * 4 + number
        account_id, instrument_id = 1 + choice % 8, 1 + choice % 7
        arguments = (1 + choice // 7 % 2, 1 + choice // 3 % 2)
        price = (
            0
            if arguments[1] == 2
            else (650_000, 350_000, 17_000, 333, 40, 2000, 1250)[instrument_id - 1]
        )
        now_ns = 1_750_000_000 * 10**9 + choice
        position_side = (0, 0, 2, 3)[choice % 4]
        commands.append(
            ("max_order_lots", account_id, instrument_id, *arguments, price, now_ns, position_side)
        )
    return commands


@dataclass(frozen=True, slots=True)
class Difference:
    """kind is what a shorter stream must still show."""

    kind: Any
    text: str


class Duel:
    """Runs commands through two engines and says where they first differ."""

    def __init__(self, settings: dict[str, int], make: Callable[..., Any] = Engine) -> None:
        self.ours = Runner(make(**settings))
        self.theirs = Runner(ReferenceEngine(**settings))
        self.compares_answers = True
        self.count = 0
        self.outcome: Any = None

    def step(self, command: Command) -> Difference | None:
        """Run a command; return what differs, or None."""
        theirs = self.theirs.run(command)
        ours = self.ours.run(command)
        self.outcome = ours
        self.count += 1
        if not same_reply(command, ours, theirs):
            return describe(command, ours, theirs)
        if remembers_greeks(theirs, command) and not is_check_only(command):
            self.compares_answers = False
        if self.count % 250 == 0:
            return self.compare_state()
        if self.count % 100 == 0:
            return self.compare_queries()
        return None

    def compare_state(self) -> Difference | None:
        if self.ours.engine.state_hash() != self.theirs.engine.state_hash():
            ours, theirs = self.ours.engine.state_lines(), self.theirs.engine.state_lines()
            only_ours = [line for line in ours if line not in set(theirs)]
            only_theirs = [line for line in theirs if line not in set(ours)]
            text = f"state\n  engine:    {only_ours}\n  reference: {only_theirs}"
            return Difference("state", text)
        same_answers = self.ours.engine.answers_hash() == self.theirs.engine.answers_hash()
        if self.compares_answers and not same_answers:
            return Difference("answers", "remembered answers differ")
        return None

    def compare_queries(self) -> Difference | None:
        for query in queries(self.count):
            theirs, ours = self.theirs.run(query), self.ours.run(query)
            if ours != theirs:
                return describe(query, ours, theirs)
        return None

    def compare_all(self) -> Difference | None:
        return self.compare_state() or self.compare_queries()


def is_check_only(command: Command) -> bool:
    return command[0] == "check" and bool(command[1]["mode"] == orders_pb.CHECK_MODE_CHECK_ONLY)


def readable(command: Command, outcome: Any) -> str:
    if not isinstance(outcome, bytes):
        return pprint.pformat(outcome, width=160)
    messages: dict[Any, Any] = {
        1: orders_pb.CheckOrderResponse,
        2: orders_pb.ReportExecutionResponse,
        3: orders_pb.GetReservationResponse,
        4: market_pb.ReportMarksResponse,
        5: orders_pb.CheckAmendmentResponse,
        6: orders_pb.BatchCheckOrdersResponse,
    }
    if method_of(command) not in messages:
        return outcome.hex()
    text = str(messages[method_of(command)].FromString(outcome))
    return " ".join(text.split()) + f" ({outcome.hex()})"


def describe(command: Command, ours: Any, theirs: Any) -> Difference:
    kind = (command[0], reasons_in(command, ours), reasons_in(command, theirs))
    text = (
        f"{command}\n"
        f"  engine:    {readable(command, ours)}\n"
        f"  reference: {readable(command, theirs)}"
    )
    return Difference(kind, text)


# --- Shrinking ------------------------------------------------------------------------------------


def difference(
    settings: dict[str, int], commands: Sequence[Command], make: Callable[..., Any] = Engine
) -> Difference | None:
    """Return how a stream ends differently in both engines, compared after its last command."""
    duel = Duel(settings, make)
    for command in commands:
        found = duel.step(command)
        if found is not None:
            return found
    return duel.compare_all()


def shrink(
    settings: dict[str, int], commands: list[Command], make: Callable[..., Any] = Engine
) -> list[Command]:
    """Return a shorter stream that fails in the same way: chunks go, half as large each round."""
    first = difference(settings, commands, make)
    assert first is not None
    size = max(1, len(commands) // 2)
    while True:
        start = len(commands) - size
        removed = False
        while start >= 0:
            shorter = commands[:start] + commands[start + size :]
            found = difference(settings, shorter, make)
            if found is not None and found.kind == first.kind:
                commands = shorter
                removed = True
            start -= size
        if size > 1:
            size //= 2
        elif not removed:
            return commands


def run_stream(
    stream: Any,
    count: int,
    make: Callable[..., Any] = Engine,
    see: Callable[[Command, Any], None] = lambda _command, _outcome: None,
) -> None:
    """Run a stream through both; fail with the shortest stream that shows a difference.

    `see` is shown every command and its outcome.
    """
    duel = Duel(stream.settings, make)
    commands: list[Command] = []
    for _ in range(count):
        command = stream.next(duel.theirs.engine)
        commands.append(command)
        found = duel.step(command)
        if found is not None:
            break
        see(command, duel.outcome)
    else:
        found = duel.compare_all()
    if found is None:
        return
    shortest = shrink(stream.settings, commands, make)
    last = difference(stream.settings, shortest, make) or found
    text = "\n".join(repr(command) for command in shortest)
    pytest.fail(
        f"command {len(commands)} differs\n{found.text}\n\n"
        f"{len(shortest)} commands are enough, with {stream.settings}:\n{text}\n\n{last.text}",
        pytrace=False,
    )


def rounds(make: Callable[[int], Any], seed: int, count: int) -> Iterator[tuple[Any, int]]:
    """Yield the streams of a seed, with how many commands each is for."""
    for number, start in enumerate(range(0, count, ROUND_COMMANDS)):
        # Settings go by the seed modulo 4.
        yield make(seed + 10_001 * number), min(ROUND_COMMANDS, count - start)


# --- Tests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(SEEDS))
def test_engine_and_reference_answer_alike(seed: int) -> None:
    for stream, count in rounds(Stream, seed, COMMANDS):
        run_stream(stream, count)


class BrokenEngine(ReferenceEngine):
    """Forgets a part of each deposit of more than a million."""

    def adjust_collateral(
        self, account_id: int, asset_id: int, amount: int, validate_only: bool, now_ns: int
    ) -> tuple[int, int, int]:
        lost = 1 if amount > 10**6 else 0
        return super().adjust_collateral(account_id, asset_id, amount - lost, validate_only, now_ns)


def test_a_difference_is_found_and_shrunk() -> None:
    stream = Stream(1)
    duel = Duel(stream.settings, BrokenEngine)
    commands: list[Command] = []
    while True:
        commands.append(stream.next(duel.theirs.engine))
        if duel.step(commands[-1]) is not None:
            break
    shortest = shrink(stream.settings, commands, BrokenEngine)
    assert [command[0] for command in shortest] == [
        "create_asset",
        "create_account",
        "adjust_collateral",
    ]


AMENDMENT_REASONS = {
    t.REASON_CODE_CLIENT_ORDER_ID_MISSING,
    t.REASON_CODE_GATEWAY_ID_MISSING,
    t.REASON_CODE_CLIENT_ORDER_ID_REUSED,
    t.REASON_CODE_VIEW_NOT_SUPPORTED,
    t.REASON_CODE_RESERVATION_UNKNOWN,
    t.REASON_CODE_PRICE_OUT_OF_RANGE,
    t.REASON_CODE_QUANTITY_MUST_BE_POSITIVE,
    t.REASON_CODE_AMENDMENT_BELOW_FILLED,
    t.REASON_CODE_QUANTITY_OUT_OF_RANGE,
    t.REASON_CODE_TRIGGER_PRICE_OUT_OF_RANGE,
    t.REASON_CODE_TRAILING_OFFSET_OUT_OF_RANGE,
    t.REASON_CODE_GATEWAY_LEASE_ENDED,
    t.REASON_CODE_SERVICE_HALTED,
    t.REASON_CODE_GATEWAY_HALTED,
    t.REASON_CODE_ACCOUNT_HALTED,
    t.REASON_CODE_INSTRUMENT_HALTED,
    t.REASON_CODE_SERVICE_REDUCE_ONLY,
    t.REASON_CODE_GATEWAY_REDUCE_ONLY,
    t.REASON_CODE_ACCOUNT_REDUCE_ONLY,
    t.REASON_CODE_INSTRUMENT_REDUCE_ONLY,
    t.REASON_CODE_MARK_STALE,
    t.REASON_CODE_NOTIONAL_OVERFLOWS,
    t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE,
    t.REASON_CODE_POSITION_SIDE_WOULD_TURN,
    t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
    t.REASON_CODE_PRICE_OUTSIDE_COLLAR,
    t.REASON_CODE_BELOW_ORDER_QUANTITY_MIN,
    t.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX,
    t.REASON_CODE_BELOW_ORDER_NOTIONAL_MIN,
    t.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX,
    t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX,
    t.REASON_CODE_MARGIN_INSUFFICIENT,
    t.REASON_CODE_BORN_LIQUIDATABLE,
    t.REASON_CODE_MARGIN_OVERFLOWS,
}
# Reasons of docs/limits.md, which the streams do not set limits for.
UNREACHED = {
    t.REASON_CODE_UNSPECIFIED,
    t.REASON_CODE_FIRM_HALTED,
    t.REASON_CODE_FIRM_REDUCE_ONLY,
    t.REASON_CODE_LIMITS_FULL,
    t.REASON_CODE_FIRMS_FULL,
    t.REASON_CODE_HOLDINGS_FULL,
    t.REASON_CODE_OWNER_INVALID,
    t.REASON_CODE_LIMIT_LOOSER_THAN_PARENT,
    t.REASON_CODE_LIMIT_UNKNOWN,
    t.REASON_CODE_FIRM_UNKNOWN,
    t.REASON_CODE_OWNER_HAS_USAGE,
    # Of other streams (family_streams.py, money_streams.py):
    t.REASON_CODE_BALANCE_INSUFFICIENT,
    t.REASON_CODE_FUNDING_OUT_OF_ORDER,
    t.REASON_CODE_INSTRUMENT_NOT_EXPIRED,
    t.REASON_CODE_INSTRUMENT_SETTLED,
    t.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE,
    t.REASON_CODE_ISOLATED_ONLY,
    t.REASON_CODE_PROTECTIVE_ORDERS_MAX,
    *range(t.REASON_CODE_LIMIT_ORDER_QUANTITY_MIN, t.REASON_CODE_LIMIT_ALLOWED + 1),
}


REASON_FIRST = {
    "create_asset",
    "upsert_schedule",
    "upsert_instrument",
    "adjust_collateral",
    "transfer_margin",
    "change_margin_mode",
    "set_leverage",
    "cancel",
    "load_position",
    "apply_funding",
    "settle_instrument",
}
REASON_ALONE = {
    "set_trading_state",
    "create_account",
    "set_position_mode",
    "renew_lease",
    "create_firm",
    "set_account_owner",
    "set_limit",
    "raise_limit",
    "remove_limit",
    "reset_usage",
    "set_margin_levels",
    "define_collateral",
    "set_credit_line",
}


def reasons_in(command: Command, outcome: Any) -> list[int]:
    """Return every reason that an outcome names."""
    decision = decision_in(command, outcome)
    if decision is not None and command[0] != "raw":
        return [decision.reason, *(each.reason for each in decision.detail.violations)]
    if isinstance(outcome, bytes) and command[0] == "execute":
        return [orders_pb.ReportExecutionResponse.FromString(outcome).reason]
    if isinstance(outcome, bytes) and command[0] == "marks":
        reply_to_marks = market_pb.ReportMarksResponse.FromString(outcome)
        return [each.reason for each in reply_to_marks.refusals]
    if isinstance(outcome, bytes) and command[0] == "batch":
        decisions = orders_pb.BatchCheckOrdersResponse.FromString(outcome).decisions
        return [each.reason for each in decisions]
    if command[0] in REASON_ALONE:
        return [outcome]
    if command[0] in REASON_FIRST:
        return [outcome[0]]
    return []


def test_streams_reach_every_reason_and_accept_half_of_the_orders() -> None:
    reached: Counter[int] = Counter()
    reached_by_amendments: Counter[int] = Counter()
    decisions: Counter[int] = Counter()
    for seed in range(26):
        stream = Stream(seed)
        runner = Runner(Engine(**stream.settings))
        mirror = Runner(ReferenceEngine(**stream.settings))
        for _ in range(1500):
            command = stream.next(mirror.engine)
            mirror.run(command)
            outcome = runner.run(command)
            reached.update(reasons_in(command, outcome))
            if command[0] == "check":
                reply = orders_pb.CheckOrderResponse.FromString(outcome)
                decisions[reply.decision] += 1
            if command[0] == "amend":
                reached_by_amendments.update(reasons_in(command, outcome))
    expected = set(t.ReasonCode.values()) - UNREACHED
    missing = [t.ReasonCode.Name(each) for each in sorted(expected - set(reached))]
    assert missing == []
    share = decisions[t.DECISION_ACCEPTED] / decisions.total()
    assert 0.35 < share < 0.75
    missing = [t.ReasonCode.Name(each) for each in AMENDMENT_REASONS - set(reached_by_amendments)]
    assert missing == []
    share = reached_by_amendments[t.REASON_CODE_NONE] / reached_by_amendments.total()
    assert 0.3 < share < 0.8


def test_what_is_refused_leaves_the_state() -> None:
    """A reject leaves the state; CHECK_ONLY and what is malformed leave the answers as well."""
    stream = Stream(5)
    mirror = Runner(ReferenceEngine(**stream.settings))
    runner = Runner(Engine(**stream.settings))
    for _ in range(1200):
        command = stream.next(mirror.engine)
        mirror.run(command)
        state, answers = runner.engine.state_hash(), runner.engine.answers_hash()
        revision = runner.engine.revision
        outcome = runner.run(command)
        raised = isinstance(outcome, str) and outcome.startswith("raised")
        if raised or is_check_only(command):
            assert runner.engine.revision == revision
            assert runner.engine.answers_hash() == answers
        if raised or is_check_only(command) or is_reject(command, outcome):
            assert runner.engine.state_hash() == state


def is_reject(command: Command, outcome: Any) -> bool:
    """Return whether an order, an amendment or an execution was refused."""
    if command[0] in ("check", "amend"):
        return reasons_in(command, outcome)[0] != t.REASON_CODE_NONE
    if command[0] == "execute":
        reply = orders_pb.ReportExecutionResponse.FromString(outcome)
        return bool(reply.decision == t.DECISION_REJECTED)
    return False


def test_max_quantity_passes_and_one_lot_more_does_not() -> None:
    stream = Stream(6)
    mirror = Runner(ReferenceEngine(**stream.settings))
    runner = Runner(Engine(**stream.settings))
    seen = 0
    for _ in range(3000):
        command = stream.next(mirror.engine)
        mirror.run(command)
        outcome = runner.run(command)
        if command[0] != "check" or command[1]["mode"] == 3 or command[1]["client_order_id"] == 0:
            continue
        lots = orders_pb.CheckOrderResponse.FromString(outcome).max_quantity_lots
        if lots == 0:
            continue
        if orders_pb.CheckOrderResponse.FromString(outcome).revision != runner.engine.revision:
            continue  # a first answer, given again: the state has moved on
        for quantity, accepted in ((lots, True), (lots + 1, False)):
            fields = command[1] | {"mode": 2, "view": 1, "quantity_lots": quantity}
            reply = runner.run(("check", fields, command[2]))
            decision = orders_pb.CheckOrderResponse.FromString(reply).decision
            assert (decision == t.DECISION_ACCEPTED) is accepted, (command, lots)
        seen += 1
    assert seen > 50


def amended_flags(order: Order) -> int:
    """Return the flags that an amended order is decided with."""
    quote, close = orders_pb.ORDER_FLAG_QUOTE_QUANTITY, orders_pb.ORDER_FLAG_CLOSE_POSITION
    if order.closes_position or not order.flags & close:
        return order.flags & ~quote
    return order.flags & ~(quote | close) | orders_pb.ORDER_FLAG_REDUCE_ONLY


def test_amendments_are_decided_as_new_orders_with_the_old_one_gone() -> None:
    """Cancelling and checking what would be left says the same, but where risk is only taken away.

    On the reference, which can be copied: the streams hold the engine to it.
    """
    stream = Stream(8)
    mirror = Runner(ReferenceEngine(**stream.settings))
    lighter_count = heavier_count = searched_count = 0
    for _ in range(8000):
        command = stream.next(mirror.engine)
        if command[0] != "amend":
            mirror.run(command)
            continue
        before = copy.deepcopy(mirror)
        answer = decision_in(command, mirror.run(command))
        assert answer is not None
        _, fields, key, now_ns = command
        working = {each.reservation_id: each for each in before.engine.working_orders()}
        order = working.get(answer.reservation_id)
        if order is None or before.engine.revision == mirror.engine.revision:
            continue  # a reject of steps 1 and 2, or a repeat
        filled = order.quantity - order.remaining
        lots = answer.max_quantity_lots
        if lots:
            for quantity, accepted in ((lots, True), (lots + 1, False)):
                probe = fields | {"client_order_id": 10**9, "quantity_lots": quantity}
                outcome = copy.deepcopy(before).run(("amend", probe, key, now_ns))
                reply = orders_pb.CheckAmendmentResponse.FromString(outcome).order
                assert (reply.decision == t.DECISION_ACCEPTED) is accepted, (command, lots)
            searched_count += 1
        kept = (
            fields["price_ticks"] == order.price_ticks
            and fields["trigger_price_ticks"] == order.trigger_price
            and fields["trailing_offset_ticks"] == order.trailing_offset
        )
        if kept and fields["quantity_lots"] <= order.quantity:
            halts = range(t.REASON_CODE_SERVICE_HALTED, t.REASON_CODE_INSTRUMENT_EXPIRED + 1)
            allowed = {t.REASON_CODE_NONE, t.REASON_CODE_NOTIONAL_OVERFLOWS, *halts}
            assert answer.reason in allowed | {t.REASON_CODE_MARGIN_OVERFLOWS}, command
            lighter_count += 1
            continue
        cancel = {"gateway_id": order.gateway_id, "execution_id": 2**63, "kind": 2}
        before.run(("execute", cancel, key, now_ns))
        new = {
            "account_id": order.account_id,
            "instrument_id": order.instrument_id,
            "client_order_id": 10**9,
            "gateway_id": fields["gateway_id"],
            "side": order.side,
            "position_side": order.position_side,
            "order_type": order.order_type,
            "price_ticks": fields["price_ticks"],
            "trigger_price_ticks": fields["trigger_price_ticks"],
            "trailing_offset_ticks": fields["trailing_offset_ticks"],
            "quantity_lots": fields["quantity_lots"] - filled,
            "flags": amended_flags(order),
            "mode": 2,
            "view": fields["view"],
        }
        expected = decision_in(("check",), before.run(("check", new, now_ns)))
        assert expected is not None
        if order.closes_position and expected.reason == t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE:
            # There is nothing to close: new orders meet that in step 3, amendments in step 5.
            assert answer.reason != t.REASON_CODE_NONE, command
            continue
        assert (answer.reason, answer.detail) == (expected.reason, expected.detail), command
        if answer.decision == t.DECISION_ACCEPTED:
            for name in (*LIQUIDATION, "margin_unknown", "initial_margin_minor", "available_minor"):
                assert getattr(answer, name) == getattr(expected, name), (command, name)
        heavier_count += 1
    assert min(lighter_count, heavier_count, searched_count) > 20


def test_no_strictly_reducing_order_is_refused_for_limits_or_margin() -> None:
    """Each position of each account can always be halved, whatever marks and limits are."""
    stream = Stream(7)
    mirror = Runner(ReferenceEngine(**stream.settings))
    runner = Runner(Engine(**stream.settings))
    seen = 0
    for index in range(2000):
        command = stream.next(mirror.engine)
        mirror.run(command)
        runner.run(command)
        if index % 50 or index < 100:
            continue
        for account_id in range(1, 9):
            for row in runner.engine.positions(account_id):
                if row.instrument_id not in (BTC, ETH, CALL) or abs(row.lots) < 2:
                    continue
                side = 2 if row.lots > 0 else 1
                if (row.sell_lots if side == 2 else row.buy_lots) + abs(row.lots) // 2 > abs(
                    row.lots
                ):
                    continue
                fields = {
                    "account_id": account_id,
                    "instrument_id": row.instrument_id,
                    "client_order_id": 10**9 + index,
                    "gateway_id": 50,
                    "side": side,
                    "position_side": row.position_side,
                    "order_type": 2,
                    "quantity_lots": abs(row.lots) // 2,
                    "mode": 2,
                }
                reply = runner.run(("check", fields, stream.now_ns))
                answer = orders_pb.CheckOrderResponse.FromString(reply)
                halts = range(t.REASON_CODE_SERVICE_HALTED, t.REASON_CODE_INSTRUMENT_EXPIRED + 1)
                assert answer.reason == t.REASON_CODE_NONE or answer.reason in halts
                seen += 1
    assert seen > 50


def test_unknown_methods_are_refused() -> None:
    engine = Engine(**SETTINGS_ROOMY)
    for method in (0, 8, 99):
        with pytest.raises(ValueError, match=str(method)):
            engine.handle(method, b"", 0)
