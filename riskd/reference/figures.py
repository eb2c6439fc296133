"""Margin figures of positions and accounts, computed anew each time."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction

from riskd.core.rows import (
    InstrumentRow,
    ScheduleRow,
)
from riskd.reference.collateral import AMOUNT_MAX, Collateral
from riskd.reference.families import FAMILY_OPEN_INTEREST
from riskd.reference.margin import (
    Contract,
    Fill,
    Side,
    SideMargin,
    SideSums,
    base_of_lot,
    fill_contract,
    fill_option,
    fill_spot,
    has_deductions,
    liquidation_price,
    liquidation_requirement,
    maintenance,
    profit,
    side_margin,
    to_ticks,
    value_at,
)
from riskd.reference.numbers import BILLION, INT64_MAX, ceil, ceil_div, clamp, fits, floor
from riskd.reference.options import ShortMargin, option_requirement, short_margin
from riskd.reference.state import (
    INVERSE_OPTION,
    LIMIT_PRICED,
    NONE,
    ONLY_CLOSES,
    SPOT,
    TRIGGERED,
    Account,
    Position,
    PositionKey,
    Reason,
    Status,
    is_contract,
    is_inverse,
    is_option,
    is_protective,
    sign_of_side,
)
from riskd.v1 import types_pb2 as t


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order that does not work yet, as it counts in the sums."""

    key: PositionKey
    sign: int
    sums: SideSums
    margin_price: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order asks for, but its quantity."""

    account_id: int
    instrument_id: int
    position_side: int
    gateway_id: int
    side: int
    order_type: int
    flags: int
    price_ticks: int
    trigger_price: int
    trailing_offset: int
    reserves: bool
    is_amendment: bool = False
    kept_lots: int = 0
    """Of an amendment that keeps all prices: what is left of the old order, its risk was taken."""

    @property
    def sign(self) -> int:
        return sign_of_side(self.side)

    @property
    def key(self) -> PositionKey:
        return PositionKey(self.account_id, self.instrument_id, self.position_side)

    @property
    def has_limit_price(self) -> bool:
        return self.order_type in LIMIT_PRICED

    @property
    def only_closes(self) -> bool:
        return bool(self.flags & ONLY_CLOSES)

    @property
    def is_protective(self) -> bool:
        return is_protective(self.order_type, self.flags)

    def only_takes_risk_away(self, quantity: int) -> bool:
        """Return whether it is an amendment at the old prices that does not raise the quantity."""
        return self.kept_lots > 0 and quantity <= self.kept_lots


@dataclass(frozen=True, slots=True)
class AccountFigures:
    cross_pnl: int
    initial_margin: int
    available: int
    maintenance: int
    requirement: int
    collateral: int = 0
    """What balances of other assets count."""
    credit: int = 0

    @property
    def available_without_credit(self) -> int:
        return self.available - self.credit

    def fits(self) -> bool:
        return fits(self.cross_pnl, self.initial_margin, self.available, self.collateral)


@dataclass(frozen=True, slots=True)
class PoolPart:
    """What a position adds to its pool."""

    pnl: int
    maintenance: int
    requirement: int
    """In which it can be liquidated."""


@dataclass(frozen=True, slots=True)
class AssetSums:
    """What an account's positions settled in one asset come to, in that asset."""

    initial: int = 0
    pnl: int = 0
    maintenance: int = 0
    requirement: int = 0
    is_open: bool = False
    """Whether there is a position with x not 0, or an order that holds something."""

    def plus(self, initial_margin: int, part: PoolPart, *, is_open: bool) -> "AssetSums":
        return AssetSums(
            self.initial + initial_margin,
            self.pnl + part.pnl,
            self.maintenance + part.maintenance,
            self.requirement + part.requirement,
            self.is_open or is_open,
        )


@dataclass(frozen=True, slots=True)
class Foreign:
    """What balances of other assets, and positions settled in them, add in the account's own."""

    value: int
    initial: int
    maintenance: int
    requirement: int


def margin_ratio(requirement: int, equity: int) -> int:
    """Return requirement over equity in ppm, rounded up; 2^63 - 1 if there is no equity."""
    if equity <= 0:
        return INT64_MAX
    return min(INT64_MAX, ceil_div(requirement * 10**6, equity))


class Figures(Collateral):
    """What positions and accounts require, and where they are liquidated."""

    # --- One position ---

    def _mode(self, account_id: int, instrument_id: int) -> int:
        """Return the effective mode of an account's positions in an instrument."""
        if self._instruments[instrument_id].isolated_only:
            return t.MARGIN_MODE_ISOLATED
        own = self._settings(account_id, instrument_id).own_mode
        return own or self._accounts[account_id].margin_mode

    def _is_isolated(self, key: PositionKey) -> bool:
        return self._mode(key.account_id, key.instrument_id) == t.MARGIN_MODE_ISOLATED

    def _leverage(self, account_id: int, instrument_id: int) -> int:
        """Return the effective leverage of an account's positions in an instrument."""
        if not is_contract(self._instruments[instrument_id].kind):
            return 100
        own = self._settings(account_id, instrument_id).own_leverage
        first_tier = self._schedule_of(instrument_id).tiers[0]
        return own or min(self._accounts[account_id].leverage, first_tier.leverage_max)

    def _is_open_cross(self, key: PositionKey, position: Position) -> bool:
        """Return whether it is a cross contract with x not 0."""
        return (
            position.lots != 0
            and is_contract(self._instruments[key.instrument_id].kind)
            and not self._is_isolated(key)
        )

    def _is_short_option(self, key: PositionKey, position: Fill | Position) -> bool:
        return position.lots < 0 and is_option(self._instruments[key.instrument_id].kind)

    def _schedule_of(self, instrument_id: int) -> ScheduleRow:
        return self._schedules[self._instruments[instrument_id].schedule_id]

    def _scale(self, instrument: InstrumentRow) -> int:
        return self._assets[instrument.asset_id].scale

    def _contract(self, key: PositionKey) -> Contract:
        """Return a contract with schedule, leverage and open interest of now."""
        instrument_id = key.instrument_id
        instrument = self._instruments[instrument_id]
        schedule = self._schedule_of(instrument_id)
        leverage = self._leverage(key.account_id, instrument_id)
        contract = Contract(instrument, schedule, self._scale(instrument), leverage)
        if schedule.family != FAMILY_OPEN_INTEREST or instrument_id not in self._marks:
            return contract
        price = self._marks[instrument_id].price
        open_interest = ceil(contract.notional(instrument.open_interest_lots, price))
        return replace(contract, open_interest=open_interest)

    def _value(self, instrument: InstrumentRow, price_ticks: int, quantity: int) -> int:
        return ceil(self._value_in_ticks(instrument, price_ticks, quantity))

    def _traded(self, instrument: InstrumentRow, price: int, quantity: int, sign: int) -> int:
        """Return what a fill costs or brings: of an inverse contract rounded for its notional."""
        value = self._value_in_ticks(instrument, price, quantity)
        return floor(value) if sign > 0 else ceil(value)

    def _smallest_of_value(self, instrument: InstrumentRow, price_ticks: int, least: int) -> int:
        """Return the fewest lots whose value at a price is at least so much; 0 for no money."""
        one_lot = self._value_in_ticks(instrument, price_ticks, 1)
        # ceil(q one_lot) >= least exactly when q one_lot > least - 1.
        return floor((least - 1) / one_lot) + 1 if least > 0 else 0

    def _value_at(self, instrument_id: int, lots: int, price: int) -> Fraction:
        """Return the value of |lots| at a price in mark units."""
        instrument = self._instruments[instrument_id]
        return value_at(instrument, self._scale(instrument), abs(lots), price)

    def _value_in_ticks(self, instrument: InstrumentRow, price: int, lots: int) -> Fraction:
        """Return what lots are worth at a price in ticks, unrounded."""
        units = price * instrument.mark_units_per_tick
        return value_at(instrument, self._scale(instrument), lots, units)

    def _mark_value(self, instrument_id: int, lots: int) -> Fraction:
        """Return the value of |lots| at the mark."""
        return self._value_at(instrument_id, lots, self._marks[instrument_id].price)

    def _sigma(self, instrument_id: int, lots: int) -> int:
        """Return 1 for lots that gain when their value rises, -1 when it falls, 0 for none."""
        sign = (lots > 0) - (lots < 0)
        return -sign if is_inverse(self._instruments[instrument_id].kind) else sign

    def _unrealised(self, instrument_id: int, lots: int, entry_value: int) -> int:
        if lots == 0:  # No mark is needed.
            return 0
        value = self._mark_value(instrument_id, lots)
        return profit(self._sigma(instrument_id, lots), entry_value, value)

    # --- Spot ---

    def _base_of_lot(self, instrument: InstrumentRow) -> int:
        """Return B of a spot pair."""
        one_lot = base_of_lot(instrument, self._assets[instrument.base_asset_id].scale)
        assert one_lot.denominator == 1
        return one_lot.numerator

    def _base_for_sale(self, account_id: int, asset_id: int) -> int:
        """Return what the working sells of an account's spot pairs take of their base asset."""
        total = 0
        for order in self._orders.values():
            instrument = self._instruments[order.instrument_id]
            is_of_base = instrument.kind == SPOT and instrument.base_asset_id == asset_id
            if order.account_id == account_id and is_of_base and order.sign < 0:
                total += order.remaining * self._base_of_lot(instrument)
        return total

    # --- Short options ---

    def _quoted(self, option: InstrumentRow) -> InstrumentRow:
        """Return the instrument in whose mark units an option's strike and forward count."""
        return self._instruments[option.underlying_id] if option.kind == INVERSE_OPTION else option

    def _needs_short_margin(self, key: PositionKey, new: NewOrder | None = None) -> bool:
        """Return whether an option with a rule is short, or has a sell that opens."""
        instrument = self._instruments[key.instrument_id]
        if not is_option(instrument.kind) or instrument.option_rule_id == 0:
            return False
        lots = self._position(key).lots
        return lots < 0 or self._sums_with(key, -1, new).lots > max(0, lots)

    def _short_margin(self, instrument_id: int) -> ShortMargin | None:
        """Return what one short lot of an option requires, None without its rule or marks."""
        instrument = self._instruments[instrument_id]
        mark = self._marks.get(instrument_id)
        underlying_mark = self._marks.get(instrument.underlying_id)
        if instrument.option_rule_id == 0 or mark is None or underlying_mark is None:
            return None
        rule = self._schedules[instrument.option_rule_id]
        scale = self._scale(instrument)
        return short_margin(instrument, rule, scale, underlying_mark.price, mark.price)

    def _option_requirement(self, key: PositionKey, new: NewOrder | None) -> int | None:
        """Return what an option with its orders takes from the pool, None if it is unknown."""
        instrument = self._instruments[key.instrument_id]
        lots = self._position(key).lots
        buys, sells = self._sums_with(key, 1, new), self._sums_with(key, -1, new)
        if instrument.option_rule_id == 0:
            if lots < 0:
                return None
            return buys.value + ceil_div(buys.value * instrument.taker_fee_ppb, BILLION)
        short = None
        if self._needs_short_margin(key, new):
            short = self._short_margin(key.instrument_id)
            if short is None:
                return None
        return option_requirement(instrument, lots, buys, sells, short)

    # --- Working orders ---

    def _side_sums(self, key: PositionKey, sign: int) -> SideSums:
        """Return L, A and O of the working orders of a side."""
        instrument = self._instruments[key.instrument_id]
        sums = SideSums(0, 0, 0)
        for order in self._orders_of(key):
            if order.sign == sign and not order.is_protective:
                value = self._value(instrument, order.margin_price, order.remaining)
                sums = sums.plus(SideSums(order.remaining, value, order.open_loss))
        return sums

    def _reference_price(self, terms: Terms) -> int | None:
        """Return R in mark units; None if it is unknown."""
        units = self._instruments[terms.instrument_id].mark_units_per_tick
        held = self._marks.get(terms.instrument_id)
        mark = None if held is None else held.price
        if terms.order_type in TRIGGERED:
            trigger = terms.trigger_price * units
            if mark is None:
                return trigger
            is_stop = terms.order_type in (t.ORDER_TYPE_STOP, t.ORDER_TYPE_STOP_LIMIT)
            # A stop goes with the market, a take profit against it.
            takes_higher = is_stop == (terms.side == t.SIDE_BUY)
            return max(trigger, mark) if takes_higher else min(trigger, mark)
        if mark is not None and terms.order_type == t.ORDER_TYPE_TRAILING_STOP:
            return max(1, mark + terms.sign * terms.trailing_offset * units)
        return mark

    def _assumed_price(self, terms: Terms) -> int | None:
        """Return p, the price in ticks that an order fills at; None if it is unknown."""
        if terms.has_limit_price:
            return terms.price_ticks
        reference = self._reference_price(terms)
        if reference is None:
            return None
        return self._moved_by_buffer(terms.instrument_id, reference, terms.sign)

    def _moved_by_buffer(self, instrument_id: int, reference: int, sign: int) -> int:
        """Return a price in mark units moved against a buyer (1) or a seller (-1), in ticks."""
        instrument = self._instruments[instrument_id]
        one_tick = BILLION * instrument.mark_units_per_tick
        buffer = instrument.market_buffer_ppb
        if sign > 0:
            return ceil_div(reference * (BILLION + buffer), one_tick)
        return max(1, reference * (BILLION - buffer) // one_tick)

    def _new_order(self, terms: Terms, quantity: int, price: int) -> NewOrder:
        """Return how an order counts in the sums: its margin price and its open loss."""
        if terms.is_protective:
            return NewOrder(terms.key, terms.sign, SideSums(0, 0, 0), 0)
        instrument = self._instruments[terms.instrument_id]
        units = instrument.mark_units_per_tick
        reference = self._reference_price(terms)
        margin_price = price
        open_loss = 0
        if is_contract(instrument.kind) and reference is not None:
            prices = [reference]
            if terms.instrument_id in self._marks:
                prices.append(self._marks[terms.instrument_id].price)
            at_reference = self._value_at(terms.instrument_id, quantity, reference)
            at_price = self._value_in_ticks(instrument, price, quantity)
            # A buyer loses below its price, in inverse contracts what it owes is worth less there.
            if (terms.sign > 0) != is_inverse(instrument.kind):
                open_loss = max(0, ceil(at_price) - floor(at_reference))
            else:
                open_loss = max(0, ceil(at_reference) - floor(at_price))
            # It is margined at the largest notional that it may have at its fill.
            if is_inverse(instrument.kind) and terms.sign > 0:
                margin_price = max(1, min(price, *(each // units for each in prices)))
            elif terms.sign < 0 and not is_inverse(instrument.kind):
                margin_price = max(price, *(ceil_div(each, units) for each in prices))
        value = self._value(instrument, margin_price, quantity)
        sums = SideSums(quantity, value, open_loss)
        return NewOrder(terms.key, terms.sign, sums, margin_price)

    def _sums_with(self, key: PositionKey, sign: int, new: NewOrder | None) -> SideSums:
        sums = self._side_sums(key, sign)
        if new is not None and (new.key, new.sign) == (key, sign):
            return sums.plus(new.sums)
        return sums

    def _side_margin(self, key: PositionKey, sign: int, new: NewOrder | None) -> SideMargin:
        """Return one side of a contract. A cross position with x not 0 must have its mark."""
        position = self._position(key)
        held = position.entry_value
        if position.lots != 0 and not self._is_isolated(key):
            held = ceil(self._mark_value(key.instrument_id, position.lots))
        return side_margin(
            self._contract(key),
            position.lots,
            sign,
            self._sums_with(key, sign, new),
            held,
        )

    def _requirement(self, key: PositionKey, new: NewOrder | None = None) -> int | None:
        """Return what a position with its orders takes from the pool.

        None: it cannot be known, as a mark is missing or it is a short option without a rule.
        """
        instrument = self._instruments[key.instrument_id]
        position = self._position(key)
        if is_option(instrument.kind):
            return self._option_requirement(key, new)
        if instrument.kind == SPOT:
            sides_sums = [self._sums_with(key, sign, new) for sign in (1, -1)]
            fees = [ceil_div(each.value * instrument.taker_fee_ppb, BILLION) for each in sides_sums]
            return sides_sums[0].value + sum(fees)
        if self._is_open_cross(key, position) and key.instrument_id not in self._marks:
            return None
        sides = [self._side_margin(key, sign, new) for sign in (1, -1)]
        # Each order may fill: all count with the loss that they lock in and with their fee.
        costs = 0
        for sign in (1, -1):
            sums = self._sums_with(key, sign, new)
            costs += sums.open_loss + ceil_div(sums.value * instrument.taker_fee_ppb, BILLION)
        if self._is_isolated(key):
            return max(side.order_margin for side in sides) + costs
        part = self._pool_part(key, position)
        assert part is not None
        # Rates may rise with the mark faster than what leverage asks for.
        return max(part.requirement, *(side.side_margin for side in sides)) + costs

    def _pool_part(self, key: PositionKey, position: Position) -> PoolPart | None:
        """Return what a position adds to the pool's profit and requirements, None if unknown."""
        if self._is_open_cross(key, position):
            if key.instrument_id not in self._marks:
                return None
            contract = self._contract(key)
            lots, entry_value = position.lots, position.entry_value
            notional = ceil(self._mark_value(key.instrument_id, lots))
            return PoolPart(
                self._unrealised(key.instrument_id, lots, entry_value),
                maintenance(contract, lots, entry_value, notional),
                liquidation_requirement(contract, lots, entry_value, notional),
            )
        has_rule = self._instruments[key.instrument_id].option_rule_id != 0
        if has_rule and self._is_short_option(key, position):
            short = self._short_margin(key.instrument_id)
            if short is None:
                return None
            # Its mark is inside of what it requires.
            kept = short.maintenance_of(-position.lots)
            return PoolPart(0, kept, kept)
        return PoolPart(0, 0, 0)

    # --- The account ---

    def _asset_sums(
        self,
        account: Account,
        new: NewOrder | None = None,
        without: Collection[PositionKey] = (),
    ) -> dict[int, AssetSums] | None:
        """Return what an account's positions come to by settlement asset, None if not known.

        Without some positions: only what others add to the pool, initial margins do not matter.
        """
        sums: dict[int, AssetSums] = {}
        keys = {key for key, _ in self._positions_of(account.account_id)}
        if new is not None:
            keys.add(new.key)
        for key in sorted(keys.difference(without)):
            initial_margin = 0
            if not without:
                requirement = self._requirement(key, new)
                if requirement is None:
                    return None
                initial_margin = requirement
            position = self._position(key)
            part = self._pool_part(key, position)
            if part is None:
                return None
            is_open = position.lots != 0 or any(
                self._sums_with(key, sign, new).lots != 0 for sign in (1, -1)
            )
            asset_id = self._asset_of(key.instrument_id)
            held = sums.get(asset_id, AssetSums())
            sums[asset_id] = held.plus(initial_margin, part, is_open=is_open)
        return sums

    def _exposure_to(
        self, account: Account, base_asset_id: int, new: NewOrder | None = None
    ) -> int | None:
        """Return E: what an account loses in cross contracts on an asset as that loses all value.

        None if it is not known or a sum does not fit.
        """
        sums: dict[int, int] = {}
        keys = {key for key, _ in self._positions_of(account.account_id)}
        if new is not None:
            keys.add(new.key)
        for key in keys:
            instrument = self._instruments[key.instrument_id]
            is_about = is_contract(instrument.kind) and instrument.base_asset_id == base_asset_id
            if not is_about or self._is_isolated(key):
                continue
            exposed = self._sums_with(key, 1, new).value
            lots = self._position(key).lots
            if lots != 0:
                if key.instrument_id not in self._marks:
                    return None
                value = self._mark_value(key.instrument_id, lots)
                exposed += ceil(value) if lots > 0 else -floor(value)
            sums[instrument.asset_id] = sums.get(instrument.asset_id, 0) + exposed
        exposure = 0
        for asset_id, amount in sums.items():
            price = Fraction(1)
            if asset_id != account.asset_id:
                index_id = self._collateral[account.asset_id, asset_id].index_instrument_id
                if index_id not in self._marks:
                    return None
                price = self._index_price(index_id, asset_id)
            if not fits(amount):
                return None
            exposure += ceil(amount * price)
        return max(0, exposure)

    def _counted_value(
        self, account: Account, asset_id: int, balance: int, new: NewOrder | None = None
    ) -> int | None:
        """Return what a balance counts beside the account's contracts on the same asset."""
        value = self._balance_value(account, asset_id, balance)
        terms = self._collateral.get((account.asset_id, asset_id))
        if value is None or value <= 0 or terms is None or terms.wrong_way_ppb == 0:
            return value
        exposure = self._exposure_to(account, asset_id, new)
        if exposure is None:
            return None
        return value - ceil_div(min(value, exposure) * terms.wrong_way_ppb, BILLION)

    def _foreign(
        self,
        account: Account,
        sums: dict[int, AssetSums],
        balances: dict[int, int],
        new: NewOrder | None = None,
    ) -> Foreign | None:
        """Return what other assets add, None if it is not known or a figure does not fit."""
        foreign = Foreign(0, 0, 0, 0)
        open_assets = {asset_id for asset_id, each in sums.items() if each.is_open}
        for asset_id in sorted(open_assets.union(balances) - {account.asset_id}):
            held = sums.get(asset_id, AssetSums())
            equity = balances.get(asset_id, 0) + held.pnl
            if not fits(equity, held.initial, held.maintenance, held.requirement):
                return None
            terms = self._collateral.get((account.asset_id, asset_id))
            if terms is not None and terms.index_instrument_id not in self._marks:
                return None
            value = self._counted_value(account, asset_id, equity, new)
            if value is None:
                return None
            price = Fraction(0)
            if terms is not None:
                price = self._index_price(terms.index_instrument_id, asset_id)
            foreign = Foreign(
                foreign.value + value,
                foreign.initial + ceil(held.initial * price),
                foreign.maintenance + ceil(held.maintenance * price),
                foreign.requirement + ceil(held.requirement * price),
            )
        return foreign

    def _account_figures(
        self, account: Account, new: NewOrder | None = None
    ) -> AccountFigures | None:
        """Return the sums of an account with a new order, None if they cannot be known."""
        sums = self._asset_sums(account, new)
        if sums is None:
            return None
        own = sums.get(account.asset_id, AssetSums())
        foreign = self._foreign(account, sums, dict(self._balances_of(account)), new)
        if foreign is None:
            return None
        credit = self._credit(account)
        initial_margin = own.initial + foreign.initial
        return AccountFigures(
            cross_pnl=own.pnl,
            initial_margin=initial_margin,
            available=account.cash + own.pnl + foreign.value + credit - initial_margin,
            maintenance=own.maintenance + foreign.maintenance,
            requirement=own.requirement + foreign.requirement,
            collateral=foreign.value,
            credit=credit,
        )

    def _available(self, account: Account) -> int:
        """Return what replies say is available: 0 when it is unknown or does not fit."""
        figures = self._account_figures(account)
        return figures.available if figures is not None and figures.fits() else 0

    def _covers_margin(self, account: Account) -> bool:
        """Return whether an account has its initial margin without credit (A-2)."""
        figures = self._account_figures(account)
        return figures is not None and figures.fits() and figures.available_without_credit >= 0

    def _take_credit(self, account_id: int) -> None:
        """Take anew how much of its line an account uses; as it is while that is not known."""
        account = self._accounts[account_id]
        figures = self._account_figures(account)
        if account.credit_line == 0:
            self._accounts[account_id] = replace(account, credit_used=0)
        elif figures is not None and figures.fits():
            used = min(AMOUNT_MAX, max(0, -figures.available_without_credit))
            self._accounts[account_id] = replace(account, credit_used=used)

    def _group(self, key: PositionKey, position: Fill | Position) -> dict[PositionKey, Side]:
        """Return what moves with a contract's position: with cross, all its sides that are open."""
        group = {key: Side(position.lots, position.entry_value)}
        for other, held in self._positions_of(key.account_id):
            is_of_contract = other.instrument_id == key.instrument_id and other != key
            if is_of_contract and self._is_open_cross(other, held):
                group[other] = Side(held.lots, held.entry_value)
        return group

    def _pool_with(
        self, key: PositionKey, group: Collection[PositionKey], money: int, part: PoolPart
    ) -> tuple[int, int] | None:
        """Return equity and requirement of the pool with a group of positions as it would be.

        part is that of all of the group, which key is of; money is what there would be in the
        asset that they are settled in. None without a mark.
        """
        account = self._accounts[key.account_id]
        sums = self._asset_sums(account, without=group)
        if sums is None:
            return None
        balances = dict(self._balances_of(account))
        cash = account.cash
        asset_id = self._asset_of(key.instrument_id)
        if self._is_foreign(key):
            balances[asset_id] = money
        else:
            cash = money
        sums[asset_id] = sums.get(asset_id, AssetSums()).plus(0, part, is_open=True)
        own = sums.get(account.asset_id, AssetSums())
        foreign = self._foreign(account, sums, balances)
        if foreign is None:
            return None
        equity = cash + own.pnl + foreign.value + self._credit(account)
        return equity, own.requirement + foreign.requirement

    def _money_behind(
        self, key: PositionKey, group: Collection[PositionKey], wallet: int, cash: int
    ) -> int | None:
        """Return w of a liquidation price, None if it is not known.

        A cross position settled in another asset has none: what backs it moves with its mark.
        """
        if self._is_isolated(key):
            return wallet
        if self._is_foreign(key):
            return None
        others = self._pool_with(key, group, cash, PoolPart(0, 0, 0))
        return None if others is None else others[0] - others[1]

    def _mark_reason(self, instrument: InstrumentRow, now_ns: int) -> Reason:
        """S-10, S-11 of one instrument."""
        mark = self._marks.get(instrument.instrument_id)
        if mark is None:
            return t.REASON_CODE_MARK_MISSING
        if instrument.mark_age_max_ns != 0 and now_ns - mark.time_ns > instrument.mark_age_max_ns:
            return t.REASON_CODE_MARK_STALE
        return NONE

    def _marks_needed(self, key: PositionKey, new: NewOrder | None = None) -> list[int]:
        """Return the instruments whose marks the pool needs for a position with its orders."""
        if self._is_open_cross(key, self._position(key)):
            return [key.instrument_id]
        if self._needs_short_margin(key, new):
            return [key.instrument_id, self._instruments[key.instrument_id].underlying_id]
        return []

    def _pool_mark_reason(
        self, account_id: int, now_ns: int, skip: int = 0, foreign_asset_id: int = 0
    ) -> Reason:
        """Return the first of S-10 and S-11 in the order of the account's instruments.

        Then those of the indices of other assets; also of one that an order would be settled in.
        """
        for key, _ in self._positions_of(account_id):
            if key.instrument_id == skip:
                continue
            for instrument_id in self._marks_needed(key):
                reason = self._mark_reason(self._instruments[instrument_id], now_ns)
                if reason != NONE:
                    return reason
        account = self._accounts[account_id]
        assets = {asset_id for asset_id, _ in self._balances_of(account)} | {foreign_asset_id}
        for key, position in self._positions_of(account_id):
            holds = any(self._side_sums(key, sign).lots != 0 for sign in (1, -1))
            if self._is_foreign(key) and (position.lots != 0 or holds):
                assets.add(self._asset_of(key.instrument_id))
        for asset_id in sorted(assets):
            terms = self._collateral.get((account.asset_id, asset_id))
            if terms is not None and terms.index_instrument_id != skip:
                reason = self._mark_reason(self._instruments[terms.index_instrument_id], now_ns)
                if reason != NONE:
                    return reason
        return NONE

    # --- Fills and liquidation prices ---

    def _fill(self, terms: Terms, quantity: int, price: int) -> Fill:
        """Return the fill of a whole new order at its price."""
        open_loss = self._new_order(terms, quantity, price).sums.open_loss
        position = self._position(terms.key)
        return self._fill_of(terms.key, position, terms.sign, price, quantity, open_loss)

    def _fill_of(
        self,
        key: PositionKey,
        position: Position,
        sign: int,
        price: int,
        quantity: int,
        open_loss: int,
    ) -> Fill:
        instrument = self._instruments[key.instrument_id]

        def traded(lots: int) -> int:
            return self._traded(instrument, price, lots, sign)

        if is_option(instrument.kind):
            return fill_option(position, sign, quantity, traded)
        if instrument.kind == SPOT:
            return fill_spot(sign, quantity, self._base_of_lot(instrument), traded)
        return fill_contract(
            self._contract(key),
            self._is_isolated(key),
            position,
            sign,
            quantity,
            open_loss,
            traded,
        )

    def _liquidation(
        self, key: PositionKey, position: Fill | Position, cash: int
    ) -> tuple[Status, int]:
        """Return status and liquidation price in mark units."""
        instrument = self._instruments[key.instrument_id]
        if not is_contract(instrument.kind):
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        if position.lots == 0:
            return t.LIQUIDATION_STATUS_NO_POSITION, 0
        group = self._group(key, position)
        money = self._money_behind(key, group, position.wallet, cash)
        if money is None or not fits(money):
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        contract = self._contract(key)
        sides = list(group.values())
        mark = self._marks.get(key.instrument_id)
        if not has_deductions(contract, sides) or (len(group) > 1 and mark is None):
            return t.LIQUIDATION_STATUS_UNSPECIFIED, 0
        price = liquidation_price(contract, sides, money, mark.price if mark else None)
        if price is None:
            return t.LIQUIDATION_STATUS_CANNOT_BE_LIQUIDATED, 0
        return t.LIQUIDATION_STATUS_AT_PRICE, clamp(price)

    def _liquidation_ticks(
        self, key: PositionKey, position: Fill | Position, cash: int
    ) -> tuple[Status, int]:
        """Return status and liquidation price in ticks."""
        status, price = self._liquidation(key, position, cash)
        if status != t.LIQUIDATION_STATUS_AT_PRICE:
            return status, 0
        units = self._instruments[key.instrument_id].mark_units_per_tick
        is_below = position.lots > 0
        if len(self._group(key, position)) > 1:
            is_below = price <= self._marks[key.instrument_id].price
        return status, to_ticks(price, is_below, units)
