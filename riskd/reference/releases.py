"""Orders that stop working by themselves or in bulk: time, leases of gateways, mass cancels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from riskd.reference.figures import Figures
from riskd.reference.numbers import BILLION
from riskd.reference.state import NONE, Gateway, Order, Reason
from riskd.reference.wire import encode_varint_fields
from riskd.v1 import types_pb2 as t

EXPIRED_MAX: Final = 1024
"""How many orders advance_time releases at their time in one call."""
LEASE_NS_MAX: Final = 86400 * BILLION
KEPT_MAX: Final = 10_000
LISTED_MAX: Final = 10_000


class Releases(Figures):
    """advance_time, leases, cancel_orders."""

    def _advance_time(self, now_ns: int) -> bytes:
        """Reply: 1 how many were released, 2 revision, 3 whether more may be due now."""
        due = sorted(
            (order.expire_ns, order.reservation_id)
            for order in self._orders.values()
            if order.time_in_force == t.TIME_IN_FORCE_GTD and order.expire_ns <= now_ns
        )
        expired = [self._orders[reservation_id] for _, reservation_id in due[:EXPIRED_MAX]]
        self._release(expired)
        ended = [
            gateway_id
            for gateway_id, gateway in sorted(self._gateways.items())
            if gateway.lease_action == t.LEASE_ACTION_CANCEL
            and gateway.lease_end_ns <= now_ns
            and not gateway.lease_swept
        ]
        swept: list[Order] = []
        for gateway_id in ended:
            orders = self._matching_orders(gateway_id=gateway_id)
            self._release(orders)
            swept += orders
            self._gateways[gateway_id] = replace(self._gateways[gateway_id], lease_swept=True)
        if expired or ended:
            self._revision += 1
        more = int(len(expired) == EXPIRED_MAX)
        return encode_varint_fields(len(expired) + len(swept), self._revision, more)

    def _release(self, orders: list[Order]) -> None:
        for order in orders:
            self._close(order)
        for account_id in {order.account_id for order in orders}:
            self._take_credit(account_id)

    def _matching_orders(
        self,
        gateway_id: int = 0,
        account_id: int = 0,
        instrument_id: int = 0,
        side: int = 0,
        accepted_before_ns: int = 0,
    ) -> list[Order]:
        """Return the working orders that fit every field that is not 0, by rising reservation."""
        return [
            order
            for _, order in sorted(self._orders.items())
            if gateway_id in (0, order.gateway_id)
            and account_id in (0, order.account_id)
            and instrument_id in (0, order.instrument_id)
            and side in (0, order.side)
            and (accepted_before_ns == 0 or order.accepted_ns < accepted_before_ns)
        ]

    def renew_lease(self, gateway_id: int, duration_ns: int, action: int, now_ns: int) -> int:
        """Return the reason."""
        if gateway_id == 0:
            return t.REASON_CODE_GATEWAY_ID_MISSING
        if not 0 <= duration_ns <= LEASE_NS_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if duration_ns != 0 and action not in (t.LEASE_ACTION_BLOCK, t.LEASE_ACTION_CANCEL):
            return t.REASON_CODE_DEFINITION_INVALID
        if duration_ns != 0 and not self._has_gateway_room(gateway_id):
            return t.REASON_CODE_GATEWAYS_FULL
        state = self._gateway(gateway_id).trading_state
        if duration_ns != 0:
            self._gateways[gateway_id] = Gateway(state, now_ns + duration_ns, action)
        elif gateway_id in self._gateways:
            self._gateways[gateway_id] = Gateway(state)
        self._revision += 1
        return NONE

    def cancel_orders(
        self,
        gateway_id: int,
        account_id: int,
        instrument_id: int,
        side: int,
        accepted_before_ns: int,
        keep: Sequence[int],
        validate_only: bool,
        now_ns: int,
    ) -> tuple[int, int, list[int]]:
        """Release what fits every field that is not 0; return (reason, count, first ids)."""
        reason = self._cancel_reason(gateway_id, account_id, instrument_id, side, len(keep))
        if reason != NONE:
            return reason, 0, []
        kept = set(keep)
        orders = [
            order
            for order in self._matching_orders(
                gateway_id, account_id, instrument_id, side, accepted_before_ns
            )
            if order.reservation_id not in kept
        ]
        if orders and not validate_only:
            self._release(orders)
            self._revision += 1
        return NONE, len(orders), [each.reservation_id for each in orders[:LISTED_MAX]]

    def _cancel_reason(
        self, gateway_id: int, account_id: int, instrument_id: int, side: int, kept_count: int
    ) -> Reason:
        """A-9, F-3, F-4."""
        if (gateway_id, account_id, instrument_id) == (0, 0, 0):
            return t.REASON_CODE_DEFINITION_INVALID
        if side not in (t.SIDE_UNSPECIFIED, t.SIDE_BUY, t.SIDE_SELL) or kept_count > KEPT_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if account_id != 0 and account_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if instrument_id != 0 and instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        return NONE
