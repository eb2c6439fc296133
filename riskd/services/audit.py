"""AuditService: who changed what."""

import grpc

from riskd.services.backend import Backend, page_bounds
from riskd.services.control import read_scope
from riskd.services.errors import METHOD_NOT_IMPLEMENTED, RefusalError
from riskd.v1 import audit_service_pb2 as pb
from riskd.v1.audit_service_pb2_grpc import AuditServiceServicer


class AuditService(AuditServiceServicer):
    """Changes that were made outside the hot door."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

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
        raise RefusalError(
            METHOD_NOT_IMPLEMENTED,
            "ExplainDecision is not implemented yet: CheckOrder with mode CHECK_ONLY and view FULL "
            "explains an order on the state of now",
            method="ExplainDecision",
        )
