"""Remembered answers: a repeat gets the first one, byte for byte."""

from dataclasses import dataclass, replace
from typing import Final

ANSWER_ORDER: Final = 1
ANSWER_EXECUTION: Final = 2
ANSWER_AMENDMENT: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A remembered reply. content is the request without its time."""

    kind: int
    gateway_id: int
    request_id: int
    content: bytes
    reply: bytes
    undone: bool = False
    """Of an execution: a bust or correction undid it."""

    @property
    def size_bytes(self) -> int:
        return (128 + len(self.reply) + 15) // 16 * 16


class AnswerMemory:
    """The last answers of each gateway: those to orders and amendments, those to executions."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._rings: dict[tuple[int, bool], list[Answer]] = {}

    def find(self, kind: int, gateway_id: int, request_id: int) -> Answer | None:
        for answer in self._rings.get((gateway_id, kind == ANSWER_EXECUTION), []):
            if (answer.kind, answer.request_id) == (kind, request_id):
                return answer
        return None

    def remember(self, answer: Answer) -> None:
        """Add an answer; the oldest beside it go when it needs their room."""
        key = (answer.gateway_id, answer.kind == ANSWER_EXECUTION)
        ring = self._rings.setdefault(key, [])
        ring.append(answer)
        self._forget(ring)

    def resize(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        for ring in self._rings.values():
            self._forget(ring)

    def _forget(self, ring: list[Answer]) -> None:
        while sum(each.size_bytes for each in ring) > self._size_bytes_max:
            del ring[0]

    def undo(self, gateway_id: int, execution_id: int) -> None:
        """Mark a remembered execution as undone."""
        ring = self._rings[gateway_id, True]
        index = [each.request_id for each in ring].index(execution_id)
        ring[index] = replace(ring[index], undone=True)

    def all(self) -> list[Answer]:
        """Return them by gateway, orders before executions, oldest first."""
        return [each for key in sorted(self._rings) for each in self._rings[key]]
