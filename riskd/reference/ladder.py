"""Steps 4 to 7 of CheckOrder, and the largest quantity that passes them."""

from dataclasses import dataclass
from typing import Final

from riskd.core.rows import (
    InstrumentRow,
)
from riskd.reference.figures import PoolPart, Terms, margin_ratio
from riskd.reference.limits import MAX_QUANTITY_KINDS, Asked, Limits, reason_of
from riskd.reference.margin import (
    Fill,
    bankruptcy_price,
    can_be_liquidated,
    initial,
    liquidation_requirement,
    lots_max,
    maintenance,
    notional_max,
    profit,
    to_ticks,
)
from riskd.reference.numbers import BILLION, COUNT_MAX, ceil, ceil_div, clamp, fits, sign_of
from riskd.reference.state import (
    NONE,
    SPOT,
    Decision,
    Reason,
    Violation,
    is_contract,
    is_option,
)
from riskd.v1 import types_pb2 as t


@dataclass(frozen=True, slots=True)
class PositionAfter:
    """A contract after the fill of a whole order, at R."""

    notional: int
    initial_margin: int
    maintenance: int
    unrealised_pnl: int
    equity: int
    requirement: int
    behind: int
    """w of its liquidation price."""
    margin_ratio: int
    bankruptcy_ticks: int
    lots: int
    tier: int

    def fits(self) -> bool:
        return fits(self.notional, self.unrealised_pnl, self.equity, self.requirement, self.behind)


PROTECTIVE_MAX: Final = 64
"""How many protective orders work on a position."""
MAX_QUANTITY_REASONS: Final = (
    t.REASON_CODE_QUANTITY_OUT_OF_RANGE,
    t.REASON_CODE_NOTIONAL_OVERFLOWS,
    t.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX,
    t.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX,
    t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX,
    t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE,
    t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED,
    t.REASON_CODE_POSITION_SIDE_WOULD_TURN,
    t.REASON_CODE_MARGIN_INSUFFICIENT,
    t.REASON_CODE_BORN_LIQUIDATABLE,
    t.REASON_CODE_MARGIN_OVERFLOWS,
    t.REASON_CODE_BALANCE_INSUFFICIENT,
    *(reason_of(kind) for kind in MAX_QUANTITY_KINDS),
)


HEDGE_CLOSES: Final = (
    (t.POSITION_SIDE_LONG, t.SIDE_SELL),
    (t.POSITION_SIDE_SHORT, t.SIDE_BUY),
)


class Ladder(Limits):
    """The rules that an order of a known form meets."""

    # --- Step 4: state ---

    def _largest_reducing(self, terms: Terms) -> int:
        """Return the largest strictly reducing quantity, 0 if there is none."""
        lots = self._position(terms.key).lots
        if sign_of(lots) != -terms.sign:
            return 0
        if terms.is_protective:
            return abs(lots)
        return max(0, abs(lots) - self._side_sums(terms.key, terms.sign).lots)

    def _is_strictly_reducing(self, terms: Terms, quantity: int) -> bool:
        return 0 < quantity <= self._largest_reducing(terms)

    def _state_reason(self, terms: Terms, quantity: int, now_ns: int) -> Reason:
        """S-1 to S-14 and F-13."""
        instrument = self._instruments[terms.instrument_id]
        gateway = self._gateway(terms.gateway_id)
        reducing = self._is_strictly_reducing(terms, quantity)
        lighter = terms.only_takes_risk_away(quantity)
        states = (
            self._service_state,
            self._firm_state(terms.account_id),
            gateway.trading_state,
            self._account_state(terms.account_id),
            instrument.trading_state,
        )
        halted = (
            t.REASON_CODE_SERVICE_HALTED,
            t.REASON_CODE_FIRM_HALTED,
            t.REASON_CODE_GATEWAY_HALTED,
            t.REASON_CODE_ACCOUNT_HALTED,
            t.REASON_CODE_INSTRUMENT_HALTED,
        )
        for state, reason in zip(states, halted, strict=True):
            if state == t.TRADING_STATE_HALTED:
                return reason
        is_expired = instrument.expiry_ns != 0 and instrument.expiry_ns <= now_ns
        if is_expired or instrument.settlement_price != 0:
            return t.REASON_CODE_INSTRUMENT_EXPIRED
        reduce_only = (
            t.REASON_CODE_SERVICE_REDUCE_ONLY,
            t.REASON_CODE_FIRM_REDUCE_ONLY,
            t.REASON_CODE_GATEWAY_REDUCE_ONLY,
            t.REASON_CODE_ACCOUNT_REDUCE_ONLY,
            t.REASON_CODE_INSTRUMENT_REDUCE_ONLY,
        )
        if not (reducing or lighter):
            for state, reason in zip(states, reduce_only, strict=True):
                if state == t.TRADING_STATE_REDUCE_ONLY:
                    return reason
            if gateway.lease_end_ns != 0 and gateway.lease_end_ns <= now_ns:
                return t.REASON_CODE_GATEWAY_LEASE_ENDED
        price = self._assumed_price(terms)
        mark_reason = NONE if lighter else self._mark_reason(instrument, now_ns)
        if mark_reason == t.REASON_CODE_MARK_MISSING and (not reducing or price is None):
            return mark_reason
        if mark_reason == t.REASON_CODE_MARK_STALE and not reducing:
            return mark_reason
        if price is not None and not (reducing or lighter):
            mark_reason = self._underlying_mark_reason(terms, quantity, price, now_ns)
            if mark_reason != NONE:
                return mark_reason
        return self._price_reason(terms, quantity)

    def _underlying_mark_reason(
        self, terms: Terms, quantity: int, price: int, now_ns: int
    ) -> Reason:
        """S-10, S-11 of what an option counts on that is short, or would be, with the order."""
        new = self._new_order(terms, quantity, price)
        instrument = self._instruments[terms.instrument_id]
        keys = {key for key, _ in self._positions_of(terms.account_id)} | {terms.key}
        of_instrument = [key for key in keys if key.instrument_id == terms.instrument_id]
        if any(self._needs_short_margin(key, new) for key in of_instrument):
            return self._mark_reason(self._instruments[instrument.underlying_id], now_ns)
        return NONE

    def _firm_state(self, account_id: int) -> int:
        firm = self._firms.get(self._accounts[account_id].firm_id)
        return t.TRADING_STATE_NORMAL if firm is None else firm.trading_state

    def _account_state(self, account_id: int) -> int:
        """Return the stricter of the states of an account and its parent."""
        account = self._accounts[account_id]
        parent = self._accounts.get(account.parent_account_id, account)
        return max(account.trading_state, parent.trading_state)

    def _price_reason(self, terms: Terms, quantity: int) -> Reason:
        """F-13 of R, p and the order's value."""
        price = self._known_price(terms)
        reference = self._reference_price(terms)
        if price > COUNT_MAX or (reference is not None and reference > COUNT_MAX):
            return t.REASON_CODE_NOTIONAL_OVERFLOWS
        if not fits(self._value(self._instruments[terms.instrument_id], price, quantity)):
            return t.REASON_CODE_NOTIONAL_OVERFLOWS
        return NONE

    def _known_price(self, terms: Terms) -> int:
        price = self._assumed_price(terms)
        assert price is not None
        return price

    # --- Steps 5 to 7: limits, margin, room ---

    def _violations(self, terms: Terms, quantity: int, now_ns: int) -> list[Violation]:
        """Return every violated rule from step 5 on, in the order of the ladder."""
        found = self._limit_violations(terms, quantity)
        found += self._level_violations(self._asked(terms, quantity), now_ns)
        found += self._margin_violations(terms, quantity, now_ns)
        if terms.reserves:
            found += self._room_violations(terms)
        return found

    def _limit_violations(self, terms: Terms, quantity: int) -> list[Violation]:
        if terms.only_takes_risk_away(quantity):
            return []
        instrument = self._instruments[terms.instrument_id]
        price = self._known_price(terms)
        reducing = self._is_strictly_reducing(terms, quantity)
        largest = self._largest_reducing(terms)
        found = []
        if terms.only_closes and not reducing:
            reason = t.REASON_CODE_REDUCE_ONLY_WOULD_INCREASE
            found.append(Violation(reason, largest, 0, quantity))
        protective = [each for each in self._orders_of(terms.key) if each.is_protective]
        if terms.is_protective and len(protective) >= PROTECTIVE_MAX:
            reason = t.REASON_CODE_PROTECTIVE_ORDERS_MAX
            found.append(Violation(reason, PROTECTIVE_MAX, len(protective), 1))
        if (terms.position_side, terms.side) in HEDGE_CLOSES and not reducing:
            reason = t.REASON_CODE_POSITION_SIDE_WOULD_TURN
            found.append(Violation(reason, largest, 0, quantity))
        may_be_short = not is_option(instrument.kind) or instrument.option_rule_id != 0
        if not may_be_short and terms.side == t.SIDE_SELL and not reducing:
            reason = t.REASON_CODE_SHORT_OPTION_NOT_PERMITTED
            found.append(Violation(reason, largest, 0, quantity))
        found += self._collar_violations(terms, instrument)
        if reducing:
            return found
        value = self._value(instrument, price, quantity)
        if quantity < instrument.order_lots_min:
            reason = t.REASON_CODE_BELOW_ORDER_QUANTITY_MIN
            found.append(Violation(reason, instrument.order_lots_min, 0, quantity))
        if instrument.order_lots_max != 0 and quantity > instrument.order_lots_max:
            reason = t.REASON_CODE_EXCEEDS_ORDER_QUANTITY_MAX
            found.append(Violation(reason, instrument.order_lots_max, 0, quantity))
        if value < instrument.order_notional_min:
            reason = t.REASON_CODE_BELOW_ORDER_NOTIONAL_MIN
            found.append(Violation(reason, instrument.order_notional_min, 0, value))
        if instrument.order_notional_max != 0 and value > instrument.order_notional_max:
            reason = t.REASON_CODE_EXCEEDS_ORDER_NOTIONAL_MAX
            found.append(Violation(reason, instrument.order_notional_max, 0, value))
        if is_contract(instrument.kind):
            found += self._position_notional_violations(terms, quantity, price)
        return found

    def _asked(self, terms: Terms, quantity: int) -> Asked:
        """Return the order as the limits of its levels see it."""
        price = self._known_price(terms)
        return Asked(
            account=self._accounts[terms.account_id],
            instrument=self._instruments[terms.instrument_id],
            gateway_id=terms.gateway_id,
            sign=terms.sign,
            quantity=quantity,
            price=price,
            reference=self._reference_price(terms) if terms.has_limit_price else None,
            working_value=self._new_order(terms, quantity, price).sums.value,
            leverage=self._leverage(terms.account_id, terms.instrument_id),
            is_reducing=self._is_strictly_reducing(terms, quantity) or terms.is_protective,
            is_lighter=terms.only_takes_risk_away(quantity),
            is_amendment=terms.is_amendment,
            is_counted=terms.reserves or terms.is_amendment,
        )

    def _collar_violations(self, terms: Terms, instrument: InstrumentRow) -> list[Violation]:
        """L-5."""
        reference = self._reference_price(terms)
        collar = instrument.price_collar_ppb
        if not terms.has_limit_price or collar == 0 or reference is None:
            return []
        one_tick = BILLION * instrument.mark_units_per_tick
        if terms.sign > 0:
            bound = reference * (BILLION + collar)
            outside = terms.price_ticks * one_tick > bound
            last_inside = bound // one_tick
        else:
            bound = reference * (BILLION - collar)
            outside = terms.price_ticks * one_tick < bound
            last_inside = ceil_div(bound, one_tick)
        if not outside:
            return []
        reason = t.REASON_CODE_PRICE_OUTSIDE_COLLAR
        return [Violation(reason, clamp(last_inside), 0, terms.price_ticks)]

    def _position_notional_violations(
        self, terms: Terms, quantity: int, price: int
    ) -> list[Violation]:
        """L-6."""
        schedule = self._schedule_of(terms.instrument_id)
        leverage = self._leverage(terms.account_id, terms.instrument_id)
        new = self._new_order(terms, quantity, price)
        if not self._sums_with(terms.key, terms.sign, new).fits():
            return []  # M-3 says it
        before = self._side_margin(terms.key, terms.sign, None)
        after = self._side_margin(terms.key, terms.sign, new)
        for bound, use, with_order, in_lots in (
            (notional_max(schedule, leverage), before.side_notional, after.side_notional, False),
            (lots_max(schedule, leverage), before.side_lots, after.side_lots, True),
        ):
            if bound is not None and with_order > bound:
                reason = t.REASON_CODE_EXCEEDS_POSITION_NOTIONAL_MAX
                rest = clamp(with_order - use)
                return [Violation(reason, bound, clamp(use), rest, in_lots=in_lots)]
        return []

    def _margin_violations(self, terms: Terms, quantity: int, now_ns: int) -> list[Violation]:
        """Step 6. What is missing, stale or does not fit ends it: nothing is judged on it."""
        account = self._accounts[terms.account_id]
        price = self._known_price(terms)
        new = self._new_order(terms, quantity, price)
        sums = self._sums_with(terms.key, terms.sign, new)
        if self._is_strictly_reducing(terms, quantity) or terms.only_takes_risk_away(quantity):
            return [] if sums.fits() else [Violation(t.REASON_CODE_MARGIN_OVERFLOWS)]
        order_asset_id = 0 if terms.is_protective else self._asset_of(terms.instrument_id)
        mark_reason = self._pool_mark_reason(
            terms.account_id, now_ns, terms.instrument_id, order_asset_id
        )
        if mark_reason != NONE:
            return [Violation(mark_reason)]
        before = self._account_figures(account)
        after = self._account_figures(account, new)
        filled = self._fill(terms, quantity, price)
        position_fits = self._fill_fits(terms, filled)
        account_fits = before is not None and after is not None and before.fits() and after.fits()
        if not (sums.fits() and position_fits and account_fits):
            return [Violation(t.REASON_CODE_MARGIN_OVERFLOWS)]
        found = []
        if before is not None and after is not None and after.available < 0:
            reserved = after.initial_margin - before.initial_margin
            limit, order_use = clamp(before.available), clamp(reserved)
            found.append(Violation(t.REASON_CODE_MARGIN_INSUFFICIENT, limit, 0, order_use))
        kind = self._instruments[terms.instrument_id].kind
        if is_contract(kind):
            found += self._born_liquidatable_violations(terms, filled)
        elif is_option(kind):
            found += self._born_short_violations(terms, filled)
        else:
            found += self._base_violations(terms, filled)
        return found

    def _fill_fits(self, terms: Terms, filled: Fill) -> bool:
        """Return whether the figures of a fill, and of the position after it, fit (M-3)."""
        instrument = self._instruments[terms.instrument_id]
        if not filled.fits(self._money_of(terms.key) + filled.cash_change):
            return False
        if instrument.kind == SPOT:
            return fits(self._base_balance(terms) + filled.base_change)
        if is_option(instrument.kind):
            pool = self._pool_with_short(terms, filled)
            return pool is None or fits(*pool)
        if terms.instrument_id not in self._marks:
            return True
        after = self._position_after(terms, filled)
        return after is None or after.fits()

    def _born_liquidatable_violations(self, terms: Terms, filled: Fill) -> list[Violation]:
        """M-2."""
        reference = self._reference_price(terms)
        if filled.lots == 0 or reference is None:
            return []
        after = self._position_after(terms, filled)
        if self._is_foreign(terms.key) and not self._is_isolated(terms.key):
            is_liquidatable = after is not None and after.equity <= after.requirement
        else:
            money = self._money_of(terms.key) + filled.cash_change
            group = self._group(terms.key, filled)
            behind = self._money_behind(terms.key, group, filled.wallet, money)
            is_liquidatable = behind is not None and can_be_liquidated(
                self._contract(terms.key), list(group.values()), behind, reference
            )
        if not is_liquidatable:
            return []
        if after is None:
            return [Violation(t.REASON_CODE_BORN_LIQUIDATABLE)]
        reason = t.REASON_CODE_BORN_LIQUIDATABLE
        return [Violation(reason, after.equity, 0, clamp(after.requirement))]

    def _pool_with_short(self, terms: Terms, filled: Fill) -> tuple[int, int] | None:
        """Return equity and requirement of the pool after a fill that leaves an option short.

        None if it does not, or they are not known.
        """
        short = self._short_margin(terms.instrument_id)
        if filled.lots >= 0 or short is None:
            return None
        money = self._money_of(terms.key) + filled.cash_change
        kept = short.maintenance_of(-filled.lots)
        return self._pool_with(terms.key, (terms.key,), money, PoolPart(0, kept, kept))

    def _born_short_violations(self, terms: Terms, filled: Fill) -> list[Violation]:
        """M-2 of an option that is short after the fill."""
        pool = self._pool_with_short(terms, filled)
        if pool is None or pool[0] > pool[1]:
            return []
        equity, requirement = pool
        return [Violation(t.REASON_CODE_BORN_LIQUIDATABLE, equity, 0, requirement)]

    def _base_balance(self, terms: Terms) -> int:
        """Return what the account has of a spot pair's base asset."""
        base_asset_id = self._instruments[terms.instrument_id].base_asset_id
        return self._balances.get((terms.account_id, base_asset_id), 0)

    def _base_violations(self, terms: Terms, filled: Fill) -> list[Violation]:
        """M-4."""
        instrument = self._instruments[terms.instrument_id]
        balance = self._base_balance(terms)
        for_sale = self._base_for_sale(terms.account_id, instrument.base_asset_id)
        sold = -filled.base_change
        if terms.sign > 0 or balance >= for_sale + sold:
            return []
        reason = t.REASON_CODE_BALANCE_INSUFFICIENT
        return [Violation(reason, balance, clamp(for_sale), clamp(sold))]

    def _room_violations(self, terms: Terms) -> list[Violation]:
        """C-3, C-2, C-10, C-7."""
        found = []
        if len(self._orders) >= self._orders_max:
            found.append(Violation(t.REASON_CODE_ORDERS_FULL))
        if not self._has_position_room(terms.key):
            found.append(Violation(t.REASON_CODE_POSITIONS_FULL))
        if not self._has_holding_room(self._accounts[terms.account_id], terms.instrument_id):
            found.append(Violation(t.REASON_CODE_HOLDINGS_FULL))
        instrument = self._instruments[terms.instrument_id]
        assets = [instrument.asset_id]
        if instrument.kind == SPOT:
            assets.append(instrument.base_asset_id)
        if not self._has_balance_room(*((terms.account_id, each) for each in assets)):
            found.append(Violation(t.REASON_CODE_BALANCES_FULL))
        return found

    # --- The largest quantity that passes ---

    def _max_quantity(self, terms: Terms, quantity: int, reason: Reason, now_ns: int) -> int:
        if reason not in MAX_QUANTITY_REASONS:
            return 0
        price = self._assumed_price(terms)
        if price is None:
            return 0
        highest = min(quantity, COUNT_MAX + 1)
        lowest = max(self._largest_reducing(terms), terms.kept_lots)
        smallest = self._smallest_order(terms, price, now_ns)
        if lowest < smallest < highest and self._passes(terms, smallest, now_ns):
            lowest = smallest
        if lowest == 0 or lowest >= highest or not self._passes(terms, lowest, now_ns):
            return 0
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            if self._passes(terms, middle, now_ns):
                lowest = middle
            else:
                highest = middle
        return lowest

    def _smallest_order(self, terms: Terms, price: int, now_ns: int) -> int:
        """Return the smallest quantity that meets the instrument's and the levels' minimums."""
        instrument = self._instruments[terms.instrument_id]
        least = instrument.order_notional_min
        for_notional = self._smallest_of_value(instrument, price, least)
        account = self._accounts[terms.account_id]
        of_levels = self._smallest_allowed(account, instrument, price, now_ns)
        return max(of_levels, instrument.order_lots_min, for_notional)

    def _passes(self, terms: Terms, quantity: int, now_ns: int) -> bool:
        """Return whether steps 4 to 6 find nothing."""
        return (
            self._state_reason(terms, quantity, now_ns) == NONE
            and not self._limit_violations(terms, quantity)
            and not first_hard(self._level_violations(self._asked(terms, quantity), now_ns))
            and not self._margin_violations(terms, quantity, now_ns)
        )

    def _position_after(self, terms: Terms, filled: Fill) -> PositionAfter | None:
        """Return a contract with a mark after a fill, valued at R.

        None if the mark of another position is missing.
        """
        instrument = self._instruments[terms.instrument_id]
        contract = self._contract(terms.key)
        reference = self._reference_price(terms)
        assert reference is not None
        lots, entry_value = filled.lots, filled.entry_value
        value = contract.notional(lots, reference)
        notional = ceil(value)
        pnl = profit(contract.sigma(lots), entry_value, value)
        requirement = liquidation_requirement(contract, lots, entry_value, notional)
        isolated = self._is_isolated(terms.key)
        money = behind = filled.wallet
        equity = money + pnl
        has_price = isolated or not self._is_foreign(terms.key)
        if not isolated:
            group = self._group(terms.key, filled)
            pnl_beside = 0
            for key, side in group.items():
                if key != terms.key:  # It moves to R with the position.
                    value = contract.notional(side.lots, reference)
                    pnl_beside += profit(contract.sigma(side.lots), side.entry_value, value)
                    requirement += liquidation_requirement(contract, *side, ceil(value))
            part = PoolPart(pnl + pnl_beside, 0, requirement)
            money = self._money_of(terms.key) + filled.cash_change
            pool = self._pool_with(terms.key, group, money, part)
            if pool is None:
                return None
            equity = pool[0]
            money = behind = equity
            if has_price:
                money = equity - pnl
                behind = money - pnl_beside - (pool[1] - requirement)
            requirement = pool[1]
        bankruptcy = None
        if lots != 0 and has_price and fits(money):
            bankruptcy = bankruptcy_price(contract, lots, entry_value, money)
        bankruptcy_ticks = 0
        if bankruptcy is not None:
            bankruptcy_ticks = to_ticks(bankruptcy, lots > 0, instrument.mark_units_per_tick)
        has_ratio = lots != 0 or not isolated
        return PositionAfter(
            notional=notional,
            initial_margin=initial(contract, lots, notional),
            maintenance=maintenance(contract, lots, entry_value, notional),
            unrealised_pnl=pnl,
            equity=equity,
            requirement=requirement,
            behind=behind,
            margin_ratio=margin_ratio(requirement, equity) if has_ratio else 0,
            bankruptcy_ticks=clamp(bankruptcy_ticks),
            lots=lots,
            tier=contract.rates(sign_of(lots), lots, notional).tier,
        )


def first_hard(violations: list[Violation]) -> Violation | None:
    """Return the first violation that stops an order."""
    return next((each for each in violations if not each.soft), None)


def verdict(violations: list[Violation]) -> tuple[Decision, Reason]:
    """Return the decision on an order that breaks these rules, and its reason."""
    stopped_by = first_hard(violations)
    if stopped_by is not None:
        return t.DECISION_REJECTED, stopped_by.reason
    if violations:
        return t.DECISION_ACCEPTED_WITH_WARNING, violations[0].reason
    return t.DECISION_ACCEPTED, NONE
