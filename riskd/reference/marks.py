"""ReportMarks."""

from riskd.reference.numbers import BILLION, COUNT_MAX
from riskd.reference.state import NONE, Mark, Reason, State
from riskd.v1 import market_data_service_pb2 as market_pb
from riskd.v1 import types_pb2 as t


class Marks(State):
    """ReportMarks."""

    def _report_marks(
        self, request: market_pb.ReportMarksRequest, now_ns: int
    ) -> market_pb.ReportMarksResponse:
        reply = market_pb.ReportMarksResponse()
        for index, mark in enumerate(request.marks):
            reason = self._report_mark_reason(mark, now_ns)
            if reason != NONE:
                reply.refusals.add(index=index, reason=reason)
                continue
            held = self._marks.get(mark.instrument_id, Mark(0, 0, 0, 0))
            self._marks[mark.instrument_id] = Mark(
                price=mark.mark_price,
                time_ns=mark.time_ns,
                volatility_ppb=mark.implied_volatility_ppb or held.volatility_ppb,
                forward=mark.forward_price or held.forward,
            )
            reply.taken_count += 1
        if reply.taken_count > 0:
            self._revision += 1
        reply.revision = self._revision
        return reply

    def _report_mark_reason(self, mark: market_pb.Mark, now_ns: int) -> Reason:
        """F-4, A-20, D-1, D-3, D-4, D-2."""
        if mark.instrument_id not in self._instruments:
            return t.REASON_CODE_INSTRUMENT_UNKNOWN
        if self._is_settled(mark.instrument_id):
            return t.REASON_CODE_INSTRUMENT_SETTLED
        if not 1 <= mark.mark_price <= COUNT_MAX:
            return t.REASON_CODE_MARK_OUT_OF_RANGE
        if mark.implied_volatility_ppb > 10**10 or not 0 <= mark.forward_price <= COUNT_MAX:
            return t.REASON_CODE_OPTION_MARK_OUT_OF_RANGE
        if mark.time_ns > now_ns + BILLION:
            return t.REASON_CODE_MARK_FROM_FUTURE
        held = self._marks.get(mark.instrument_id)
        if held is not None and mark.time_ns < held.time_ns:
            return t.REASON_CODE_MARK_OUT_OF_ORDER
        return NONE
