"""Changes of firms, owners and limits."""

from dataclasses import replace

from riskd.reference.levels import Level
from riskd.reference.limits import (
    GREEK_KINDS,
    KINDS,
    LIST_KINDS,
    MINIMUM_KINDS,
    RATE_KINDS,
    STATE_KINDS,
    Limits,
)
from riskd.reference.numbers import BILLION, clamp
from riskd.reference.state import (
    NONE,
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    Account,
    Firm,
    Gateway,
    Limit,
    LimitKey,
    Reason,
)
from riskd.v1 import types_pb2 as t

FIRM_ID_MAX = 2**32 - 1
VALUE_MAX = 2**62
RATE_MAX = BILLION
BURST_MAX = 10**6
RAISE_MAX_NS = 7 * 86400 * BILLION

NEVER_OF_ONE_INSTRUMENT = (
    *RATE_KINDS,
    t.LIMIT_KIND_DAILY_TRADED_MAX,
    *STATE_KINDS,
    *GREEK_KINDS,
)
ONLY_OF_ONE_INSTRUMENT = (t.LIMIT_KIND_POSITION_LOTS_MAX, *LIST_KINDS)


class LimitChanges(Limits):
    """Each change is whole or not at all."""

    # --- Firms and owners ---

    def create_firm(self, firm_id: int, asset_id: int) -> int:
        """Return the reason."""
        if not 1 <= firm_id <= FIRM_ID_MAX:
            return t.REASON_CODE_DEFINITION_INVALID
        if asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if firm_id in self._firms:
            return t.REASON_CODE_ALREADY_EXISTS
        if len(self._firms) >= self._firms_max:
            return t.REASON_CODE_FIRMS_FULL
        self._firms[firm_id] = Firm(firm_id, asset_id, t.TRADING_STATE_NORMAL)
        self._revision += 1
        return NONE

    def set_account_owner(
        self, account_id: int, firm_id: int, parent_account_id: int, now_ns: int
    ) -> int:
        """Put an account under a firm and a parent account; 0 is none. Return the reason."""
        account = self._accounts.get(account_id)
        if account is None:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        owned = replace(account, firm_id=firm_id, parent_account_id=parent_account_id)
        reason = self._owner_reason(account, owned, now_ns)
        if reason != NONE:
            return reason
        left, joined = self._levels_of(account), self._levels_of(owned)
        self._move_peaks([each for each in left if each not in joined], -account.cash)
        self._move_peaks([each for each in joined if each not in left], account.cash)
        self._accounts[account_id] = owned
        self._revision += 1
        return NONE

    def _owner_reason(self, account: Account, owned: Account, now_ns: int) -> Reason:
        """A-16, A-13, A-7, A-17, C-10."""
        if owned.firm_id != 0 and owned.firm_id not in self._firms:
            return t.REASON_CODE_FIRM_UNKNOWN
        if not self._is_owner_valid(owned):
            return t.REASON_CODE_OWNER_INVALID
        account_id = account.account_id
        is_open = any(key[0] == account_id and each.lots for key, each in self._positions.items())
        if is_open or any(each.account_id == account_id for each in self._orders.values()):
            return t.REASON_CODE_POSITION_NOT_FLAT
        limited = [each for each in (account_id, owned.parent_account_id) if each != 0]
        if any(self._has_foreign_open(each) for each in limited):
            return t.REASON_CODE_POSITION_NOT_FLAT
        today = self._of_day(Level(SCOPE_ACCOUNT, account_id), now_ns)
        if today.traded != 0 or today.realised != 0:
            return t.REASON_CODE_OWNER_HAS_USAGE
        self._accounts[account_id] = owned
        rows = len(self._holding_rows())
        self._accounts[account_id] = account
        if rows > self._holdings_max:
            return t.REASON_CODE_HOLDINGS_FULL
        return NONE

    def _is_owner_valid(self, owned: Account) -> bool:
        if owned.parent_account_id != 0:
            parent = self._accounts.get(owned.parent_account_id)
            if parent is None or parent.account_id == owned.account_id:
                return False
            if parent.parent_account_id != 0:
                return False
            if (parent.firm_id, parent.asset_id) != (owned.firm_id, owned.asset_id):
                return False
        if self._sub_accounts(owned.account_id):
            return False
        return owned.firm_id == 0 or self._firms[owned.firm_id].asset_id == owned.asset_id

    # --- Limits ---

    def set_limit(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        value: int,
        burst: int,
        action: int,
        now_ns: int,
    ) -> int:
        """Return the reason."""
        key = LimitKey(scope, scope_id, instrument_id, kind)
        reason = self._limit_reason(key, value, burst, action)
        if reason != NONE:
            return reason
        if scope == SCOPE_ACCOUNT and self._has_foreign_open(scope_id):
            return t.REASON_CODE_POSITION_NOT_FLAT
        held = self._limits.get(key)
        limit = Limit(value, burst, action, due_ns=held.due_ns if held else 0)
        if kind == t.LIMIT_KIND_DRAWDOWN_MAX and held is not None and held.value == value:
            limit = replace(limit, peak=held.peak)  # Loading limits again re-arms nothing.
        elif kind == t.LIMIT_KIND_DRAWDOWN_MAX:
            level = Level(scope, scope_id)
            if not self._has_marks(level):
                return t.REASON_CODE_MARK_MISSING
            limit = replace(limit, peak=clamp(self._equity_at(level)))
        if held is None and len(self._limits) >= self._limits_max:
            return t.REASON_CODE_LIMITS_FULL
        if scope == SCOPE_GATEWAY and not self._has_gateway_room(scope_id):
            return t.REASON_CODE_GATEWAYS_FULL
        if scope == SCOPE_GATEWAY:
            self._gateways.setdefault(scope_id, Gateway())
        self._limits[key] = limit
        self._revision += 1
        return NONE

    def _limit_reason(self, key: LimitKey, value: int, burst: int, action: int) -> Reason:
        """A-9, A-16, F-3, F-2, F-4, A-14."""
        if not is_limit_valid(key, value, burst, action):
            return t.REASON_CODE_DEFINITION_INVALID
        if key.scope == SCOPE_FIRM and key.scope_id not in self._firms:
            return t.REASON_CODE_FIRM_UNKNOWN
        if key.scope == SCOPE_ACCOUNT and key.scope_id not in self._accounts:
            return t.REASON_CODE_ACCOUNT_UNKNOWN
        if key.scope == SCOPE_GATEWAY and not 0 < key.scope_id < 1 << 32:
            return t.REASON_CODE_GATEWAY_ID_MISSING
        if key.instrument_id != 0 and key.instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if key.scope == SCOPE_ACCOUNT and key.kind not in LIST_KINDS:
            for level in self._levels_of(self._accounts[key.scope_id])[1:]:
                above = self._limits.get(LimitKey(*level, key.instrument_id, key.kind))
                if above is not None and is_looser(key.kind, value, above.value):
                    return t.REASON_CODE_LIMIT_LOOSER_THAN_PARENT
        return NONE

    def raise_limit(
        self,
        scope: int,
        scope_id: int,
        instrument_id: int,
        kind: int,
        value: int,
        until_ns: int,
        now_ns: int,
    ) -> int:
        """Let a looser value count until a time. Return the reason."""
        key = LimitKey(scope, scope_id, instrument_id, kind)
        limit = self._limits.get(key)
        if limit is None:
            return t.REASON_CODE_LIMIT_UNKNOWN
        if kind in LIST_KINDS or not is_looser(kind, value, limit.value):
            return t.REASON_CODE_DEFINITION_INVALID
        if not 0 <= value <= value_max(kind) or not now_ns < until_ns <= now_ns + RAISE_MAX_NS:
            return t.REASON_CODE_DEFINITION_INVALID
        self._limits[key] = replace(limit, raised_value=value, raise_until_ns=until_ns)
        self._revision += 1
        return NONE

    def remove_limit(self, scope: int, scope_id: int, instrument_id: int, kind: int) -> int:
        """Return the reason."""
        key = LimitKey(scope, scope_id, instrument_id, kind)
        if key not in self._limits:
            return t.REASON_CODE_LIMIT_UNKNOWN
        del self._limits[key]
        self._revision += 1
        return NONE

    def reset_usage(
        self, scope: int, scope_id: int, instrument_id: int, kind: int, now_ns: int
    ) -> int:
        """Start an execution rate or a drawdown anew. Return the reason."""
        key = LimitKey(scope, scope_id, instrument_id, kind)
        limit = self._limits.get(key)
        if limit is None:
            return t.REASON_CODE_LIMIT_UNKNOWN
        if kind == t.LIMIT_KIND_EXECUTION_RATE_MAX:
            self._limits[key] = replace(limit, due_ns=0)
        elif kind == t.LIMIT_KIND_DRAWDOWN_MAX:
            level = Level(scope, scope_id)
            if not self._has_marks(level):
                return t.REASON_CODE_MARK_MISSING
            self._limits[key] = replace(limit, peak=clamp(self._equity_at(level)))
        else:
            return t.REASON_CODE_DEFINITION_INVALID
        self._revision += 1
        return NONE


def is_limit_valid(key: LimitKey, value: int, burst: int, action: int) -> bool:
    """A-9 of a limit."""
    if key.scope not in (SCOPE_GATEWAY, SCOPE_ACCOUNT, SCOPE_FIRM) or key.kind not in KINDS:
        return False
    if key.scope == SCOPE_GATEWAY and key.kind != t.LIMIT_KIND_ORDER_RATE_MAX:
        return False
    if action not in (t.LIMIT_ACTION_HARD, t.LIMIT_ACTION_SOFT):
        return False
    is_rate = key.kind in RATE_KINDS
    if not is_rate <= value <= value_max(key.kind):
        return False
    if not (1 <= burst <= BURST_MAX if is_rate else burst == 0):
        return False
    of_one = key.instrument_id != 0
    return key.kind not in (NEVER_OF_ONE_INSTRUMENT if of_one else ONLY_OF_ONE_INSTRUMENT)


def value_max(kind: int) -> int:
    return RATE_MAX if kind in RATE_KINDS else VALUE_MAX


def is_looser(kind: int, value: int, than: int) -> bool:
    return value < than if kind in MINIMUM_KINDS else value > than
