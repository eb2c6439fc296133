"""The engine: one of everything."""

from typing import Final

from riskd.reference.amendment import Amendments
from riskd.reference.batch import Batches
from riskd.reference.canonical import Canonical
from riskd.reference.changes import Changes
from riskd.reference.definitions import Definitions
from riskd.reference.execution import Executions
from riskd.reference.funding import Funding
from riskd.reference.levels_of_margin import MarginLevels
from riskd.reference.limit_changes import LimitChanges
from riskd.reference.loading import Loading
from riskd.reference.marks import Marks
from riskd.reference.releases import Releases
from riskd.reference.wire import (
    decode_advance_time,
    decode_batch,
    decode_check_amendment,
    decode_check_order,
    decode_get_reservation,
    decode_report_execution,
    decode_report_marks,
    serialise,
)

METHOD_CHECK_ORDER: Final = 1
METHOD_REPORT_EXECUTION: Final = 2
METHOD_GET_RESERVATION: Final = 3
METHOD_REPORT_MARKS: Final = 4
METHOD_CHECK_AMENDMENT: Final = 5
METHOD_BATCH_CHECK_ORDERS: Final = 6
METHOD_ADVANCE_TIME: Final = 7


class ReferenceEngine(
    Amendments,
    Batches,
    Executions,
    Marks,
    Releases,
    Definitions,
    Changes,
    Funding,
    Loading,
    MarginLevels,
    LimitChanges,
    Canonical,
):
    """All state of one partition, and every rule of docs/decision.md on it."""

    def handle(self, method: int, request: bytes, now_ns: int) -> bytes:
        """Apply one hot request (its protobuf bytes) and return the reply's bytes."""
        if method == METHOD_CHECK_ORDER:
            return self._check_order(decode_check_order(request), now_ns)
        if method == METHOD_REPORT_EXECUTION:
            return self._report_execution(decode_report_execution(request), now_ns)
        if method == METHOD_GET_RESERVATION:
            return serialise(self._get_reservation(decode_get_reservation(request)))
        if method == METHOD_REPORT_MARKS:
            return serialise(self._report_marks(decode_report_marks(request), now_ns))
        if method == METHOD_CHECK_AMENDMENT:
            return self._check_amendment(decode_check_amendment(request), now_ns)
        if method == METHOD_BATCH_CHECK_ORDERS:
            return serialise(self._batch_check_orders(decode_batch(request), now_ns))
        if method == METHOD_ADVANCE_TIME:
            decode_advance_time(request)
            return self._advance_time(now_ns)
        raise ValueError(f"method {method} is not known")
