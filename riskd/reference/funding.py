"""Funding: what longs and shorts of a perpetual pay each other."""

from dataclasses import dataclass, replace

from riskd.reference.ladder import Ladder
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil, fits, floor, sign_of
from riskd.reference.state import NONE, PERPETUALS, PositionKey, Reason
from riskd.v1 import types_pb2 as t


@dataclass(frozen=True, slots=True)
class Payment:
    """What a position gets; below 0 it pays."""

    key: PositionKey
    notional: int
    """Rounded up."""
    amount: int
    is_isolated: bool


class Funding(Ladder):
    """apply_funding."""

    def apply_funding(
        self,
        instrument_id: int,
        rate_ppb: int,
        price: int,
        time_ns: int,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
    ) -> tuple[int, int, int, int]:
        """Return (reason, positions, sum paid, sum received). A price of 0 is the mark."""
        reason = self._funding_reason(instrument_id, rate_ppb, price, time_ns, now_ns)
        if reason != NONE:
            return reason, 0, 0, 0
        payments = self._payments(instrument_id, rate_ppb, price)
        paid = sum(-each.amount for each in payments if each.amount < 0)
        received = sum(each.amount for each in payments if each.amount > 0)
        asset_id = self._asset_of(instrument_id)
        owners = [(each.key.account_id, asset_id) for each in payments if not each.is_isolated]
        has_room = self._has_balance_room(*owners)
        held = dict(self._accounts), dict(self._positions), dict(self._balances)
        for payment in payments:
            self._pay(payment)
        if not (fits(paid, received) and all(self._holds(each) for each in payments)):
            reason = t.REASON_CODE_MARGIN_OVERFLOWS
        elif not has_room:
            reason = t.REASON_CODE_BALANCES_FULL
        if reason != NONE or validate_only:
            self._accounts, self._positions, self._balances = held
            return (reason, 0, 0, 0) if reason != NONE else (NONE, len(payments), paid, received)
        instrument = self._instruments[instrument_id]
        self._instruments[instrument_id] = instrument._replace(funding_time_ns=time_ns)
        for payment in payments:
            if not self._is_foreign(payment.key):
                self._count_realised(payment.key.account_id, 0, payment.amount, now_ns)
            self._take_credit(payment.key.account_id)
        self._revision += 1
        return NONE, len(payments), paid, received

    def _funding_reason(
        self, instrument_id: int, rate_ppb: int, price: int, time_ns: int, now_ns: int
    ) -> Reason:
        """F-4, A-9, A-20, A-18, S-10."""
        instrument = self._instruments.get(instrument_id)
        if instrument is None:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        is_valid = instrument.kind in PERPETUALS and abs(rate_ppb) <= BILLION
        if not is_valid or not 0 <= price <= COUNT_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if self._is_settled(instrument_id):
            return t.REASON_CODE_INSTRUMENT_SETTLED
        if not instrument.funding_time_ns < time_ns <= now_ns + BILLION:
            return t.REASON_CODE_FUNDING_OUT_OF_ORDER
        if price == 0 and instrument_id not in self._marks:
            return t.REASON_CODE_MARK_MISSING
        return NONE

    def _payments(self, instrument_id: int, rate_ppb: int, price: int) -> list[Payment]:
        """Return what every position with x not 0 gets: those whose side pays round it up."""
        payments = []
        for key, position in sorted(self._positions.items()):
            if key.instrument_id != instrument_id or position.lots == 0:
                continue
            at_price = price or self._marks[instrument_id].price
            notional = self._value_at(instrument_id, position.lots, at_price)
            share = notional * abs(rate_ppb) / BILLION
            pays = sign_of(position.lots) * rate_ppb > 0
            amount = -ceil(share) if pays else floor(share)
            payments.append(Payment(key, ceil(notional), amount, self._is_isolated(key)))
        return payments

    def _pay(self, payment: Payment) -> None:
        key = payment.key
        if payment.is_isolated:
            position = self._positions[key]
            self._positions[key] = replace(position, wallet=position.wallet + payment.amount)
        else:
            self._book(key.account_id, self._asset_of(key.instrument_id), payment.amount)

    def _holds(self, payment: Payment) -> bool:
        """Return whether what was paid, and the money after it, fit (M-3)."""
        wallet = self._position(payment.key).wallet
        return fits(payment.notional, payment.amount, self._money_of(payment.key), wallet)
