"""AccountService: accounts, their firms, collateral, margin transfers, modes and leverage."""

from typing import TYPE_CHECKING

import grpc

from riskd.catalogue import ENTRY_VALUE_MAX, Asset, Instrument
from riskd.numbers import INT64_MAX, LEVERAGE_SCALE, NUMBER_MAX, leverage_text, to_units
from riskd.services.backend import Backend, check_both_sides, page_bounds
from riskd.services.errors import FIELD_INVALID, RefusalError, enum_name, reading, reason_name
from riskd.services.messages import SCOPE_ACCOUNT, SCOPE_FIRM
from riskd.services.schedules import LEVERAGE_MAX, LEVERAGE_MIN, check_quantity, invalid
from riskd.v1 import account_service_pb2 as pb
from riskd.v1 import types_pb2
from riskd.v1.account_service_pb2_grpc import AccountServiceServicer

if TYPE_CHECKING:
    from riskd.core.engine import AccountRow

LEVERAGE_DEFAULT = "20"
# Room for profit on top, so that a first deposit cannot make later figures overflow.
COLLATERAL_MAX = 2**62

_MODES = (types_pb2.MARGIN_MODE_CROSS, types_pb2.MARGIN_MODE_ISOLATED)
_POSITION_MODES = (types_pb2.POSITION_MODE_ONE_WAY, types_pb2.POSITION_MODE_HEDGE)


class AccountService(AccountServiceServicer):
    """Accounts, their collateral, and how their positions are margined."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def CreateAccount(
        self, request: pb.CreateAccountRequest, context: grpc.ServicerContext
    ) -> pb.CreateAccountResponse:
        backend = self._backend
        if request.account_id == 0:
            raise RefusalError(
                FIELD_INVALID, "account_id is 0: must be 1 to 2^64 - 1", field="account_id", value=0
            )
        asset = backend.asset(request.settlement_asset, "settlement_asset")
        mode = request.default_margin_mode or types_pb2.MARGIN_MODE_CROSS
        if mode not in _MODES:
            raise _bad_mode("default_margin_mode", mode)
        leverage = _read_leverage(request.default_leverage or LEVERAGE_DEFAULT, "default_leverage")
        with reading(types_pb2.REASON_CODE_AMOUNT_OUT_OF_RANGE):
            cash = asset.minor(
                request.initial_collateral or "0", "initial_collateral", 0, COLLATERAL_MAX
            )
        reason = backend.change(
            context,
            request,
            "create_account",
            account_id=request.account_id,
            asset_id=asset.asset_id,
            margin_mode=mode,
            leverage=leverage,
            cash=cash,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, request.account_id)
        revision = backend.engine.revision
        return pb.CreateAccountResponse(
            account=self._account(request.account_id), revision=revision
        )

    def GetAccount(
        self, request: pb.GetAccountRequest, context: grpc.ServicerContext
    ) -> pb.GetAccountResponse:
        revision = self._backend.engine.revision
        return pb.GetAccountResponse(account=self._account(request.account_id), revision=revision)

    def ListAccounts(
        self, request: pb.ListAccountsRequest, context: grpc.ServicerContext
    ) -> pb.ListAccountsResponse:
        engine = self._backend.engine
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = engine.revision
        rows = engine.accounts(after_id, count_max + 1)
        response = pb.ListAccountsResponse(revision=revision)
        response.accounts.extend(self._backend.messages.account(row) for row in rows[:count_max])
        if len(rows) > count_max:
            response.next_page_token = str(rows[count_max - 1].account_id)
        return response

    def AdjustCollateral(
        self, request: pb.AdjustCollateralRequest, context: grpc.ServicerContext
    ) -> pb.AdjustCollateralResponse:
        backend = self._backend
        row = backend.account(request.account_id)
        asset = backend.asset(request.asset, "asset")
        amount = _read_amount(request.amount, asset)
        reason, held, available = backend.change(
            context,
            request,
            "adjust_collateral",
            validate_only=request.validate_only,
            account_id=row.account_id,
            asset_id=asset.asset_id,
            amount=amount,
        )
        settlement_asset = backend.asset_of(row.asset_id)
        if reason != types_pb2.REASON_CODE_NONE:
            if asset != settlement_asset:
                raise self._balance_refusal(reason, row.account_id, asset, amount, held)
            raise self._refusal(reason, row.account_id, asset, amount=amount)
        revision = backend.engine.revision
        account = self._account(row.account_id)
        if asset == settlement_asset:
            account.cash = asset.amount(held)
        else:
            others = {balance.asset: balance.amount for balance in account.balances}
            others[asset.symbol] = asset.amount(held)
            del account.balances[:]
            for symbol, text in others.items():
                if text != "0":
                    account.balances.add(asset=symbol, amount=text)
        return pb.AdjustCollateralResponse(
            account=account,
            available=self._available(row.account_id, settlement_asset, available),
            revision=revision,
        )

    def TransferMargin(
        self, request: pb.TransferMarginRequest, context: grpc.ServicerContext
    ) -> pb.TransferMarginResponse:
        backend = self._backend
        instrument, asset = self._position(request.account_id, request.instrument_id)
        row = self._backend.account(request.account_id)
        side = self._backend.position_side(row, request.position_side, instrument)
        amount = _read_amount(request.amount, instrument.asset)
        reason, wallet, available = backend.change(
            context,
            request,
            "transfer_margin",
            validate_only=request.validate_only,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            amount=amount,
            position_side=side,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(
                reason, request.account_id, asset, instrument, amount=amount, side=side
            )
        return pb.TransferMarginResponse(
            isolated_wallet=instrument.asset.amount(wallet),
            available=self._available(request.account_id, asset, available),
            revision=self._backend.engine.revision,
        )

    def ChangeMarginMode(
        self, request: pb.ChangeMarginModeRequest, context: grpc.ServicerContext
    ) -> pb.ChangeMarginModeResponse:
        backend = self._backend
        check_both_sides(request.position_side)
        instrument, asset = self._position(request.account_id, request.instrument_id)
        if request.margin_mode not in _MODES:
            raise _bad_mode("margin_mode", request.margin_mode)
        reason, wallet, available, cash_flow = backend.change(
            context,
            request,
            "change_margin_mode",
            validate_only=request.validate_only,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            margin_mode=request.margin_mode,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, request.account_id, asset, instrument)
        return pb.ChangeMarginModeResponse(
            isolated_wallet=instrument.asset.amount(wallet),
            available=self._available(request.account_id, asset, available),
            revision=self._backend.engine.revision,
            cash_flow=instrument.asset.amount(cash_flow),
        )

    def SetLeverage(
        self, request: pb.SetLeverageRequest, context: grpc.ServicerContext
    ) -> pb.SetLeverageResponse:
        backend = self._backend
        check_both_sides(request.position_side)
        instrument, asset = self._position(request.account_id, request.instrument_id)
        leverage = _read_leverage(request.leverage, "leverage")
        reason, taken, available = backend.change(
            context,
            request,
            "set_leverage",
            validate_only=request.validate_only,
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            leverage=leverage,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, request.account_id, asset, instrument, leverage=leverage)
        return pb.SetLeverageResponse(
            leverage=leverage_text(taken),
            available=self._available(request.account_id, asset, available),
            revision=self._backend.engine.revision,
        )

    def ChangePositionMode(
        self, request: pb.ChangePositionModeRequest, context: grpc.ServicerContext
    ) -> pb.ChangePositionModeResponse:
        backend = self._backend
        backend.account(request.account_id)
        if request.position_mode not in _POSITION_MODES:
            name = enum_name(
                types_pb2.PositionMode.items(), request.position_mode, "POSITION_MODE_"
            )
            raise RefusalError(
                types_pb2.REASON_CODE_DEFINITION_INVALID,
                f"position_mode is {name}: must be ONE_WAY or HEDGE",
                field="position_mode",
                value=request.position_mode,
                bound="ONE_WAY or HEDGE",
            )
        reason = backend.change(
            context,
            request,
            "set_position_mode",
            account_id=request.account_id,
            position_mode=request.position_mode,
        )
        if reason == types_pb2.REASON_CODE_POSITION_NOT_FLAT:
            raise self._not_flat(request.account_id)
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, request.account_id)
        revision = backend.engine.revision
        return pb.ChangePositionModeResponse(
            account=self._account(request.account_id), revision=revision
        )

    def SetAccountOwner(
        self, request: pb.SetAccountOwnerRequest, context: grpc.ServicerContext
    ) -> pb.SetAccountOwnerResponse:
        backend = self._backend
        backend.account(request.account_id)
        with backend.change_lock:
            reason = backend.change(
                context,
                request,
                "set_account_owner",
                account_id=request.account_id,
                firm_id=request.firm_id,
                parent_account_id=request.parent_account_id,
                now_ns=backend.clock(),
            )
            if reason != types_pb2.REASON_CODE_NONE:
                raise self._owner_refusal(reason, request)
            revision = backend.engine.revision
        return pb.SetAccountOwnerResponse(
            account=self._account(request.account_id), revision=revision
        )

    def CreateFirm(
        self, request: pb.CreateFirmRequest, context: grpc.ServicerContext
    ) -> pb.CreateFirmResponse:
        backend = self._backend
        if request.firm_id == 0:
            raise RefusalError(
                FIELD_INVALID, "firm_id is 0: must be 1 to 2^32 - 1", field="firm_id", value=0
            )
        asset = backend.asset(request.settlement_asset, "settlement_asset")
        reason = backend.change(
            context, request, "create_firm", firm_id=request.firm_id, asset_id=asset.asset_id
        )
        match reason:
            case types_pb2.REASON_CODE_NONE:
                pass
            case types_pb2.REASON_CODE_FIRMS_FULL:
                raise RefusalError(reason, "the firm table is full: setting firms_max is its size")
            case _:
                raise RefusalError(
                    reason,
                    f"firm_id {request.firm_id} exists already",
                    field="firm_id",
                    value=request.firm_id,
                )
        revision = backend.engine.revision
        row = next(row for row in backend.engine.firms() if row.firm_id == request.firm_id)
        return pb.CreateFirmResponse(firm=backend.messages.firm(row), revision=revision)

    def ListFirms(
        self, request: pb.ListFirmsRequest, context: grpc.ServicerContext
    ) -> pb.ListFirmsResponse:
        backend = self._backend
        after_id, count_max = page_bounds(request.page_size, request.page_token)
        revision = backend.engine.revision
        rows = [row for row in backend.engine.firms() if row.firm_id > after_id]
        return pb.ListFirmsResponse(
            firms=[backend.messages.firm(row) for row in rows[:count_max]],
            next_page_token=str(rows[count_max - 1].firm_id) if len(rows) > count_max else "",
            revision=revision,
        )

    def LoadPosition(
        self, request: pb.LoadPositionRequest, context: grpc.ServicerContext
    ) -> pb.LoadPositionResponse:
        backend = self._backend
        instrument, asset = self._position(request.account_id, request.instrument_id)
        row = backend.account(request.account_id)
        side = backend.position_side(row, request.position_side, instrument)
        with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
            lots = instrument.lots(request.quantity, "quantity", -NUMBER_MAX)
            money = instrument.asset
            entry_value = money.minor(request.entry_value, "entry_value", 1, ENTRY_VALUE_MAX)
            wallet = money.minor(
                request.isolated_wallet or "0", "isolated_wallet", 0, ENTRY_VALUE_MAX
            )
        check_quantity(lots, side, "quantity", request.quantity)
        if lots == 0:
            raise invalid("quantity", request.quantity, "not 0")
        if instrument.is_spot:
            raise invalid("instrument_id", instrument.symbol, "no SPOT pair: it has no position")
        if wallet and not self._is_isolated(row, instrument):
            raise invalid("isolated_wallet", request.isolated_wallet, "empty: it is not isolated")
        reason, _, available = backend.change(
            context,
            request,
            "load_position",
            account_id=request.account_id,
            instrument_id=request.instrument_id,
            position_side=side,
            lots=lots,
            entry_value=entry_value,
            wallet=wallet,
            validate_only=request.validate_only,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise self._refusal(reason, request.account_id, asset, instrument, side=side)
        return pb.LoadPositionResponse(
            available=self._available(request.account_id, asset, available),
            revision=backend.engine.revision,
        )

    def SetCreditLine(
        self, request: pb.SetCreditLineRequest, context: grpc.ServicerContext
    ) -> pb.SetCreditLineResponse:
        backend = self._backend
        match request.WhichOneof("owner"):
            case "account_id":
                scope, scope_id = SCOPE_ACCOUNT, request.account_id
                asset = backend.asset_of(backend.account(scope_id).asset_id)
            case "firm_id":
                scope, scope_id = SCOPE_FIRM, request.firm_id
                asset = backend.firm_asset(scope_id)
            case _:
                raise RefusalError(
                    FIELD_INVALID, "owner is not set: must be account_id or firm_id", field="owner"
                )
        with reading(types_pb2.REASON_CODE_DEFINITION_INVALID):
            amount = asset.minor(request.amount, "amount", 0, ENTRY_VALUE_MAX)
        reason = backend.change(
            context,
            request,
            "set_credit_line",
            scope=scope,
            scope_id=scope_id,
            amount=amount,
            validate_only=request.validate_only,
        )
        if reason != types_pb2.REASON_CODE_NONE:
            raise RefusalError(reason, f"credit line: {reason_name(reason)}")
        revision = backend.engine.revision
        return pb.SetCreditLineResponse(
            amount=asset.amount(amount),
            used=asset.amount(self._credit_used(scope, scope_id)),
            revision=revision,
        )

    def _credit_used(self, scope: int, scope_id: int) -> int:
        if scope == SCOPE_ACCOUNT:
            return self._backend.account(scope_id).credit_used
        rows = self._backend.engine.firms()
        return next(row for row in rows if row.firm_id == scope_id).credit_used

    def _is_isolated(self, account: "AccountRow", instrument: Instrument) -> bool:
        """Return whether a position on an instrument has a wallet of its own."""
        if instrument.is_option or instrument.isolated_only:
            return instrument.isolated_only
        for row in self._backend.engine.positions(account.account_id) or []:
            if row.instrument_id == instrument.instrument_id:
                return row.margin_mode == types_pb2.MARGIN_MODE_ISOLATED
        return account.margin_mode == types_pb2.MARGIN_MODE_ISOLATED

    def _position(self, account_id: int, instrument_id: int) -> tuple[Instrument, Asset]:
        """Return the instrument and the account's asset of a request on a position, or refuse.

        What is of the position is in the instrument's asset, what is available in the account's.
        """
        row = self._backend.account(account_id)
        instrument = self._backend.instrument(instrument_id)
        held = self._backend.asset_of(row.asset_id)
        if not self._backend.can_trade(row, instrument):
            raise _mismatch(row.account_id, instrument, held)
        return instrument, held

    def _account(self, account_id: int) -> pb.Account:
        return self._backend.messages.account(self._backend.account(account_id))

    def _available(self, account_id: int, asset: Asset, available: int) -> str:
        """Return what is left for orders; empty while a mark that it needs was never reported."""
        return asset.amount(available) if self._backend.figures_known(account_id) else ""

    def _refusal(
        self,
        reason: int,
        account_id: int,
        asset: Asset | None = None,
        instrument: Instrument | None = None,
        *,
        amount: int = 0,
        leverage: int = 0,
        side: int = types_pb2.POSITION_SIDE_NET,
    ) -> RefusalError:
        """Return the refusal of a change that the engine refused, with both sides where known.

        The numbers are read after the engine answered: under load they can be newer.
        """
        engine = self._backend.engine
        numbers: dict[str, object] = {"account_id": account_id}
        if instrument is not None:
            numbers["instrument"] = instrument.symbol
        text = f"account {account_id}: {reason_name(reason)}"
        summary = engine.summary(account_id)
        positions = engine.positions(account_id) or []
        position = next(
            (
                row
                for row in positions
                if instrument
                and (row.instrument_id, row.position_side) == (instrument.instrument_id, side)
            ),
            None,
        )
        match reason:
            case types_pb2.REASON_CODE_ALREADY_EXISTS:
                text = f"account_id {account_id} exists already"
            case types_pb2.REASON_CODE_ACCOUNTS_FULL:
                text = "the account table is full: setting accounts_max is its size"
            case types_pb2.REASON_CODE_POSITIONS_FULL:
                text = "the position table is full: setting positions_max is its size"
            case types_pb2.REASON_CODE_SETTLEMENT_ASSET_MISMATCH if asset and instrument:
                return _mismatch(account_id, instrument, asset)
            case types_pb2.REASON_CODE_EXCEEDS_AVAILABLE if (
                instrument and asset and instrument.asset != asset
            ):
                symbol = instrument.asset.symbol
                text = f"that needs more than the balance of {symbol}, or than is available"
            case types_pb2.REASON_CODE_EXCEEDS_AVAILABLE if asset and summary:
                free = asset.amount(min(summary.available, summary.cash))
                numbers |= {"available": free, "asset": asset.symbol}
                if amount:
                    numbers["amount"] = asset.amount(abs(amount))
                    text = f"amount {numbers['amount']} exceeds available {free} ({asset.symbol})"
                elif not leverage:
                    text = f"the new mode needs more than available {free} ({asset.symbol})"
                else:
                    text = (
                        f"initial margin at leverage {leverage_text(leverage)} exceeds available "
                        f"{free} ({asset.symbol})"
                    )
            case types_pb2.REASON_CODE_EXCEEDS_REMOVABLE_MARGIN if instrument and position:
                asset = instrument.asset
                wallet = asset.amount(position.isolated_wallet)
                taken = asset.amount(abs(amount))
                numbers |= {
                    "amount": taken,
                    "isolated_wallet": wallet,
                    "unrealised_pnl": asset.amount(position.unrealised_pnl),
                    "asset": asset.symbol,
                }
                text = (
                    f"amount {taken} leaves less than initial margin in the isolated wallet "
                    f"{wallet} ({asset.symbol})"
                )
            case types_pb2.REASON_CODE_NO_ISOLATED_POSITION if instrument:
                text = f"account {account_id} has no isolated position on {instrument.symbol}"
            case types_pb2.REASON_CODE_ISOLATED_ONLY if instrument:
                text = f"positions of {instrument.symbol} are isolated, whatever an account's are"
            case types_pb2.REASON_CODE_POSITION_NOT_FLAT if instrument and instrument.is_spot:
                text = f"{instrument.symbol} is a SPOT pair: it has no margin mode"
            case types_pb2.REASON_CODE_POSITION_NOT_FLAT if instrument and position:
                numbers |= {
                    "quantity": instrument.quantity(position.lots),
                    "working_buy_quantity": instrument.quantity(position.buy_lots),
                    "working_sell_quantity": instrument.quantity(position.sell_lots),
                }
                text = (
                    f"position on {instrument.symbol} is not flat: quantity "
                    f"{numbers['quantity']}, working buy {numbers['working_buy_quantity']}, "
                    f"working sell {numbers['working_sell_quantity']}"
                )
            case types_pb2.REASON_CODE_LEVERAGE_OUT_OF_RANGE if instrument:
                bound = self._leverage_bound(instrument)
                numbers |= {"leverage": leverage_text(leverage), "bound": bound}
                text = (
                    f"leverage {leverage_text(leverage)} is out of range on {instrument.symbol}: "
                    f"must be {bound}"
                )
            case types_pb2.REASON_CODE_LEVERAGE_LOWERED_ON_ISOLATED if instrument and position:
                asked, held = leverage_text(leverage), leverage_text(position.leverage)
                numbers |= {"leverage": asked, "bound": held}
                text = (
                    f"leverage {asked} is below {held} of the open isolated position on "
                    f"{instrument.symbol}"
                )
            case types_pb2.REASON_CODE_INSTRUMENT_SETTLED if instrument:
                text = f"{instrument.symbol} is settled: it has no positions any more"
            case types_pb2.REASON_CODE_SHORT_OPTION_NOT_PERMITTED if instrument:
                text = f"{instrument.symbol} has no option_rule: it may not be short"
            case types_pb2.REASON_CODE_HOLDINGS_FULL:
                text = "the table of sums is full: setting holdings_max is its size"
            case types_pb2.REASON_CODE_BORN_LIQUIDATABLE_IN_MODE if instrument:
                text = (
                    f"in the new mode a position on {instrument.symbol}, or the pool, could be "
                    "liquidated at the mark"
                )
            case types_pb2.REASON_CODE_MARK_MISSING:
                symbols = ", ".join(self._unmarked(account_id, instrument)) or "an instrument"
                numbers["instruments"] = symbols
                text = f"no mark was reported of {symbols}, and account {account_id} needs it"
            case types_pb2.REASON_CODE_MARK_STALE:
                text = f"a mark that account {account_id} needs is older than its instrument allows"
        return RefusalError(reason, text, **numbers)

    def _balance_refusal(
        self, reason: int, account_id: int, asset: Asset, amount: int, held: int
    ) -> RefusalError:
        """Return the refusal of a change of another asset's balance."""
        match reason:
            case types_pb2.REASON_CODE_BALANCES_FULL:
                text = "the balance table is full: setting balances_max is its size"
            case types_pb2.REASON_CODE_EXCEEDS_AVAILABLE if abs(amount) > held:
                text = (
                    f"amount {asset.amount(abs(amount))} exceeds balance {asset.amount(held)} "
                    f"({asset.symbol})"
                )
            case types_pb2.REASON_CODE_EXCEEDS_AVAILABLE:
                text = (
                    f"amount {asset.amount(abs(amount))} of balance {asset.amount(held)} "
                    f"({asset.symbol}) is collateral that the account's margin needs"
                )
            case _:
                text = f"account {account_id}: {reason_name(reason)}"
        return RefusalError(
            reason,
            text,
            account_id=account_id,
            field="amount",
            value=asset.amount(amount),
            bound=asset.amount(held),
            asset=asset.symbol,
        )

    def _not_flat(self, account_id: int) -> RefusalError:
        """Return the refusal of what needs an account without positions and orders."""
        rows = self._backend.engine.positions(account_id) or []
        symbols = [
            self._backend.instrument(row.instrument_id).symbol
            for row in rows
            if row.lots or row.buy_lots or row.sell_lots
        ]
        summary = self._backend.engine.summary(account_id)
        orders = summary.working_orders if summary else 0
        return RefusalError(
            types_pb2.REASON_CODE_POSITION_NOT_FLAT,
            f"account {account_id} is not flat: positions or orders on "
            f"{', '.join(symbols) or 'none'}, {orders} working orders",
            account_id=account_id,
            instruments=", ".join(symbols),
            working_orders=orders,
        )

    def _owner_refusal(self, reason: int, request: pb.SetAccountOwnerRequest) -> RefusalError:
        """Return the refusal of an owner, with the rule of the tree that it breaks."""
        numbers: dict[str, object] = {
            "account_id": request.account_id,
            "firm_id": request.firm_id,
            "parent_account_id": request.parent_account_id,
        }
        match reason:
            case types_pb2.REASON_CODE_FIRM_UNKNOWN:
                text = f"firm_id {request.firm_id} is unknown"
                numbers |= {"field": "firm_id", "value": request.firm_id}
            case types_pb2.REASON_CODE_OWNER_INVALID:
                text = self._owner_fault(request)
            case types_pb2.REASON_CODE_OWNER_HAS_USAGE:
                text = (
                    f"account {request.account_id} has traded today (UTC): its firm and parent "
                    "can change tomorrow"
                )
            case types_pb2.REASON_CODE_POSITION_NOT_FLAT:
                return self._not_flat(request.account_id)
            case _:
                text = f"account {request.account_id}: {reason_name(reason)}"
        return RefusalError(reason, text, **numbers)

    def _owner_fault(self, request: pb.SetAccountOwnerRequest) -> str:
        """Return in words why an account cannot be there in the tree (A-13)."""
        backend = self._backend
        account = backend.account(request.account_id)
        asset = backend.asset_of(account.asset_id).symbol
        name = f"account {request.account_id}"
        firm_asset = backend.catalogue.asset_of_firm(request.firm_id)
        if firm_asset is not None and firm_asset.asset_id != account.asset_id:
            return f"{name} settles in {asset}, firm {request.firm_id} in {firm_asset.symbol}"
        parent = backend.engine.account(request.parent_account_id)
        if request.parent_account_id == request.account_id:
            return f"parent_account_id {request.parent_account_id} is the account itself"
        if request.parent_account_id and parent is None:
            return f"parent_account_id {request.parent_account_id} is unknown"
        if parent is None:
            return f"{name} has sub-accounts: they must have its firm, move them first"
        parent_name = f"parent_account_id {parent.account_id}"
        if parent.parent_account_id:
            return f"{parent_name} is itself a sub-account of {parent.parent_account_id}"
        if parent.asset_id != account.asset_id:
            held = backend.asset_of(parent.asset_id).symbol
            return f"{name} settles in {asset}, {parent_name} in {held}"
        if parent.firm_id != request.firm_id:
            return f"{parent_name} belongs to firm {parent.firm_id}, not to {request.firm_id}"
        return f"{name} has sub-accounts: it cannot become one"

    def _leverage_bound(self, instrument: Instrument) -> str:
        """Return what leverage may be on an instrument, in words."""
        engine = self._backend.engine
        schedule_id = next(
            row.schedule_id
            for row in engine.instruments()
            if row.instrument_id == instrument.instrument_id
        )
        for schedule in engine.schedules():
            if schedule.schedule_id == schedule_id:
                top = leverage_text(schedule.tiers[0].leverage_max)
                return f"1 to {top}, less for a larger position"
        return "1"

    def _unmarked(self, account_id: int, instrument: Instrument | None) -> list[str]:
        """Return symbols of instruments whose marks the account may need and does not have."""
        rows = self._backend.engine.positions(account_id) or []
        ids = {row.instrument_id for row in rows if row.lots}
        if instrument is not None:
            ids.add(instrument.instrument_id)
        missing = [each for each in sorted(ids) if self._backend.engine.mark(each) is None]
        return [self._backend.instrument(each).symbol for each in missing]


def _mismatch(account_id: int, instrument: Instrument, held: Asset) -> RefusalError:
    return RefusalError(
        types_pb2.REASON_CODE_SETTLEMENT_ASSET_MISMATCH,
        f"instrument {instrument.symbol} settles in {instrument.asset.symbol}, account "
        f"{account_id} in {held.symbol}",
        field="instrument_id",
        value=instrument.asset.symbol,
        bound=held.symbol,
    )


def _read_amount(text: str, asset: Asset) -> int:
    """Return a signed amount in minor units, not zero."""
    with reading(types_pb2.REASON_CODE_AMOUNT_OUT_OF_RANGE):
        amount = asset.minor(text, "amount", minimum=-INT64_MAX)
    if amount == 0:
        raise RefusalError(
            types_pb2.REASON_CODE_AMOUNT_OUT_OF_RANGE,
            f"amount is {text[:64]!r}: must not be 0",
            field="amount",
            value=text[:64],
        )
    return amount


def _read_leverage(text: str, field: str) -> int:
    """Return a leverage in hundredths."""
    with reading(types_pb2.REASON_CODE_LEVERAGE_OUT_OF_RANGE):
        return to_units(text, field, LEVERAGE_SCALE, LEVERAGE_MIN, LEVERAGE_MAX)


def _mode_name(mode: int) -> str:
    return enum_name(types_pb2.MarginMode.items(), mode, "MARGIN_MODE_")


def _bad_mode(field: str, mode: int) -> RefusalError:
    return RefusalError(
        types_pb2.REASON_CODE_MARGIN_MODE_MISMATCH,
        f"{field} is {_mode_name(mode)}: must be CROSS or ISOLATED",
        field=field,
        value=mode,
        bound="CROSS or ISOLATED",
    )
