"""What balances of other assets than an account's own add to its pool: docs/instruments.md."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

from riskd.core.rows import CollateralRow
from riskd.reference.margin import tick_size
from riskd.reference.numbers import BILLION, ceil, floor
from riskd.reference.state import (
    NONE,
    Account,
    Reason,
    State,
    is_inverse,
    is_option,
)
from riskd.v1 import types_pb2 as t

TIERS_MAX: Final = 8
AMOUNT_MAX: Final = 2**62


class Collateral(State):
    """Definitions of collateral, and the value of balances."""

    def define_collateral(
        self,
        asset_id: int,
        settlement_asset_id: int,
        index_instrument_id: int,
        tiers: Sequence[tuple[int, int]],
        cap: int = 0,
        liability_ppb: int = BILLION,
        interest_free: int = 0,
        forced_conversion: int = 0,
        wrong_way_ppb: int = 0,
        *,
        validate_only: bool = False,
        now_ns: int = 0,
    ) -> int:
        """Tiers are (floor, weight ppb). Return the reason."""
        terms = CollateralRow(
            asset_id=asset_id,
            settlement_asset_id=settlement_asset_id,
            index_instrument_id=index_instrument_id,
            cap=cap,
            liability_ppb=liability_ppb,
            interest_free=interest_free,
            forced_conversion=forced_conversion,
            tiers=tuple((floor_k, weight_k) for floor_k, weight_k in tiers),
            wrong_way_ppb=wrong_way_ppb,
        )
        reason = self._collateral_reason(terms)
        if reason == NONE and not validate_only:
            self._collateral[settlement_asset_id, asset_id] = terms
            self._revision += 1
        return reason

    def collateral(self) -> list[CollateralRow]:
        """Return what counts as collateral, by settlement asset, then asset."""
        return [self._collateral[each] for each in sorted(self._collateral)]

    def _collateral_reason(self, terms: CollateralRow) -> Reason:
        """A-12, A-9, F-4, A-9."""
        settlement_asset_id = terms.settlement_asset_id
        if terms.asset_id not in self._assets or settlement_asset_id not in self._assets:
            return t.REASON_CODE_ASSET_UNKNOWN
        if terms.asset_id == settlement_asset_id or not are_terms_valid(terms):
            return t.REASON_CODE_DEFINITION_INVALID
        index = self._instruments.get(terms.index_instrument_id)
        if index is None:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        is_linear = not is_option(index.kind) and not is_inverse(index.kind)
        if not is_linear or index.asset_id != settlement_asset_id:
            return t.REASON_CODE_DEFINITION_INVALID
        return NONE

    def _balances_of(self, account: Account) -> list[tuple[int, int]]:
        """Return asset and balance of an account's other assets, none is 0, by rising asset."""
        return [
            (asset_id, balance)
            for (owner_id, asset_id), balance in sorted(self._balances.items())
            if owner_id == account.account_id
        ]

    def _balance_value(self, account: Account, asset_id: int, balance: int) -> int | None:
        """Return what a balance counts by itself, in minor units of the account's asset.

        None: the index has no mark, or nothing says what a debt counts.
        """
        terms = self._collateral.get((account.asset_id, asset_id))
        if balance == 0 or (terms is None and balance > 0):
            return 0
        if terms is None or terms.index_instrument_id not in self._marks:
            return None
        price = self._index_price(terms.index_instrument_id, asset_id)
        if balance < 0:
            return -ceil(-balance * price * terms.liability_ppb / BILLION)
        counted = min(balance, terms.cap) if terms.cap else balance
        floors = [floor_k for floor_k, _ in terms.tiers]
        weighted = Fraction(0)
        for (floor_k, weight_k), top in zip(terms.tiers, [*floors[1:], counted], strict=True):
            weighted += weight_k * max(0, min(counted, top) - floor_k)
        return floor(weighted * price / BILLION)

    def _index_price(self, instrument_id: int, asset_id: int) -> Fraction:
        """Return I: minor units of the settlement asset for a minor unit of the asset."""
        index = self._instruments[instrument_id]
        price = self._marks[instrument_id].price * tick_size(index) / index.mark_units_per_tick
        scale = self._assets[index.asset_id].scale - self._assets[asset_id].scale
        return price * Fraction(10) ** scale

    # --- Credit ---

    def _firm_credit_used(self, firm_id: int) -> int:
        return sum(each.credit_used for each in self._accounts.values() if each.firm_id == firm_id)

    def _credit(self, account: Account) -> int:
        """Return how much of its line backs the margin of an account."""
        firm = self._firms.get(account.firm_id)
        if firm is None or firm.credit_line == 0:
            return account.credit_line
        used_by_others = self._firm_credit_used(firm.firm_id) - account.credit_used
        return max(0, min(account.credit_line, firm.credit_line - used_by_others))


def are_terms_valid(terms: CollateralRow) -> bool:
    floors = [floor_k for floor_k, _ in terms.tiers]
    weights = [weight_k for _, weight_k in terms.tiers]
    return (
        1 <= len(terms.tiers) <= TIERS_MAX
        and floors[0] == 0
        and all(low < high for low, high in pairwise(floors))
        and floors[-1] <= AMOUNT_MAX
        and all(0 <= weight <= BILLION for weight in weights)
        and weights == sorted(weights, reverse=True)
        and 0 <= terms.cap <= AMOUNT_MAX
        and BILLION <= terms.liability_ppb <= 10 * BILLION
        and 0 <= terms.interest_free <= terms.forced_conversion <= AMOUNT_MAX
        and 0 <= terms.wrong_way_ppb <= BILLION
    )
