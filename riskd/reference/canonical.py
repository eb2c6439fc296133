"""The canonical state of docs/state.md."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple

from riskd.reference.queries import Queries
from riskd.reference.state import Position
from riskd.v1 import types_pb2 as t


class Canonical(Queries):
    """The state as text."""

    def state_lines(self) -> list[str]:
        """Return the state as text, one fact a line, in the order of docs/state.md."""
        return list(self._state_lines())

    def _state_lines(self) -> Iterator[str]:
        for asset in self.assets():
            yield line("asset", asset)
        for schedule in self.schedules():
            tiers = (":".join(map(str, tier)) for tier in schedule.tiers)
            yield line("schedule", [*schedule[:6], *schedule[7:], *tiers])
        for instrument in self.instruments():
            yield line("instrument", instrument)
        for instrument_id in sorted(self._marks):
            mark = self._marks[instrument_id]
            figures = (mark.price, mark.time_ns, mark.volatility_ppb, mark.forward)
            yield line("mark", [instrument_id, *figures])
        if self._service_state != t.TRADING_STATE_NORMAL:
            yield line("service", [self._service_state])
        for firm in self.firms():
            yield line("firm", firm)
        for gateway in self.gateways():
            yield line("gateway", gateway)
        for account_id in sorted(self._accounts):
            account = self.account(account_id)
            assert account is not None
            yield line("account", account)
        for owner, amount in sorted(self._balances.items()):
            yield line("balance", [*owner, amount])
        for key in sorted(self._positions):
            position = self._positions[key]
            settings = (position.own_mode, position.own_leverage)
            holdings = (position.lots, position.entry_value, position.wallet)
            if position != Position():
                yield line("position", [*key, *settings, *holdings, position.margin_level])
        for reservation_id in sorted(self._orders):
            yield line("order", astuple(self._orders[reservation_id]))
        for limit in self.limits():
            yield line("limit", limit)
        for level in sorted(self._usages):
            usage = self._usages[level]
            if usage.day != 0:
                yield line("usage", [*level, usage.day, usage.traded, usage.realised])
        for asset_id in sorted(self._deficits):
            if self._deficits[asset_id] != 0:
                yield line("deficit", [asset_id, self._deficits[asset_id]])
        if self._levels_ppm != (0, 0):
            yield line("levels", self._levels_ppm)
        for collateral in self.collateral():
            tiers = (":".join(map(str, tier)) for tier in collateral.tiers)
            yield line("collateral", [*collateral[:7], collateral.wrong_way_ppb, *tiers])

    def state_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the state lines, each ended by a newline."""
        return hash_lines(self._state_lines())

    def answers_hash(self) -> str:
        """Return BLAKE2b-256 (hex) of the remembered answers, then the closed orders."""
        return hash_lines(self._answer_lines())

    def _answer_lines(self) -> Iterator[str]:
        for each in self._answers.all():
            fields = [each.kind, each.gateway_id, each.request_id, each.reply.hex()]
            yield line("answer", [*fields, "undone"] if each.undone else fields)
        for order in self._closed.values():
            yield line("closed", astuple(order))
        for event in self._events:
            yield line("event", event)


def line(name: str, fields: Iterable[object]) -> str:
    return " ".join([name, *map(str, fields)])


def hash_lines(lines: Iterable[str]) -> str:
    text = "".join(f"{each}\n" for each in lines)
    return hashlib.blake2b(text.encode("ascii"), digest_size=32).hexdigest()
