"""Remembered answers: a repeat gets the first one, byte for byte."""

from dataclasses import dataclass
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

    @property
    def size_bytes(self) -> int:
        return (128 + len(self.reply) + 15) // 16 * 16


class AnswerMemory:
    """The answers of the last requests, oldest first."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._answers: list[Answer] = []

    def find(self, kind: int, gateway_id: int, request_id: int) -> Answer | None:
        key = (kind, gateway_id, request_id)
        for answer in self._answers:
            if (answer.kind, answer.gateway_id, answer.request_id) == key:
                return answer
        return None

    def remember(self, answer: Answer) -> None:
        """Add an answer; the oldest go when it needs their room."""
        self._answers.append(answer)
        while sum(each.size_bytes for each in self._answers) > self._size_bytes_max:
            del self._answers[0]

    def all(self) -> list[Answer]:
        return list(self._answers)
