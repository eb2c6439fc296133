"""AuditService: who changed what, why a decision was made, and who was denied what."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from riskd.denials import Denials
from riskd.explain import (
    DecisionTooOldError,
    DecisionUnknownError,
    ExplainBusyError,
    Explainer,
    ExplainTimeoutError,
)
from riskd.services.backend import Backend, page_bounds
from riskd.services.control import read_scope
from riskd.services.errors import (
    DECISION_NOT_KEPT,
    DECISION_UNKNOWN,
    EXPLAIN_BUSY,
    EXPLAIN_TIMEOUT,
    RefusalError,
)
from riskd.v1 import audit_service_pb2 as pb
from riskd.v1.audit_service_pb2_grpc import AuditServiceServicer


class AuditService(AuditServiceServicer):
    """Changes from outside the hot door, decisions made again, and denials.

    None is explained without an explainer, and nothing was denied without denials.
    """

    def __init__(
        self, backend: Backend, explainer: Explainer | None, denials: Denials | None = None
    ) -> None:
        self._backend = backend
        self._explainer = explainer
        self._denials = denials

    def ListChanges(
        self, request: pb.ListChangesRequest, context: grpc.ServicerContext
    ) -> pb.ListChangesResponse:
        before, count_max = page_bounds(request.page_size, request.page_token)
        subject = read_scope(request.scope) if request.HasField("scope") else None
        revision = self._backend.engine.revision
        found = self._backend.trail.newest(subject, before, count_max + 1)
        response = pb.ListChangesResponse(revision=revision)
        for change in found[:count_max]:
            message = response.changes.add(
                revision=change.revision,
                time_ns=change.time_ns,
                actor=change.origin.actor,
                method=change.origin.method,
            )
            for name, value in change.origin.arguments.items():
                message.arguments.add(name=name, value=value)
            for changed in change.changes:
                message.changes.add(name=changed.name, before=changed.before, after=changed.after)
        if len(found) > count_max:
            response.next_page_token = str(found[count_max - 1].revision)
        return response

    def ExplainDecision(
        self, request: pb.ExplainDecisionRequest, context: grpc.ServicerContext
    ) -> pb.ExplainDecisionResponse:
        engine = self._backend.engine
        if self._explainer is None:
            raise RefusalError(
                DECISION_NOT_KEPT, "durability is none: there is no journal to explain from"
            )
        revision = engine.revision
        if not 0 < request.revision <= revision:
            raise RefusalError(
                DECISION_UNKNOWN,
                f"revision is {request.revision}: must be 1 to {revision}, the last change",
                field="revision",
                value=request.revision,
                bound=revision,
            )
        with _explaining(request.revision):
            return self._explainer.explain(request.revision)

    def ListDenials(
        self, request: pb.ListDenialsRequest, context: grpc.ServicerContext
    ) -> pb.ListDenialsResponse:
        response = pb.ListDenialsResponse()
        for row in self._denials.rows() if self._denials is not None else ():
            response.denials.add(
                reason=row.reason,
                identity=row.identity,
                method=row.method,
                door=row.door,
                count=row.count,
                first_time_ns=row.first_time_ns,
                last_time_ns=row.time_ns,
                peer=row.peer,
                subject=row.subject,
                certificate=row.shown,
            )
        return response


@contextmanager
def _explaining(revision: int) -> Iterator[None]:
    """Turn what an Explainer raises into refusals; what is wrong with the journal is a fault."""
    try:
        yield
    except DecisionUnknownError as error:
        reason, text = DECISION_UNKNOWN, str(error)
    except DecisionTooOldError as error:
        reason, text = DECISION_NOT_KEPT, str(error)
    except ExplainBusyError:
        reason, text = EXPLAIN_BUSY, "another decision is being explained: one at a time"
    except ExplainTimeoutError as error:
        reason, text = EXPLAIN_TIMEOUT, str(error)
    else:
        return
    raise RefusalError(reason, text, field="revision", value=revision)
