"""A few kills: `make test-crash` does hundreds."""

import os
from pathlib import Path

import pytest

from tests.crash.clients import FindingError
from tests.crash.power import Power
from tests.crash.trial import Durability, Trial

KILLS = 5


@pytest.mark.parametrize("durability", ["process", "machine"])
def test_nothing_acknowledged_is_lost_or_doubled(durability: Durability, tmp_path: Path) -> None:
    seed = os.environ.get("RISKD_CRASH_SEED", "1")
    Trial(seed, durability, tmp_path).run(KILLS)


def test_a_service_that_loses_what_it_acknowledged_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk forgets every sync since the start, and with it what was acknowledged."""
    monkeypatch.setattr(Power, "_read_notes", lambda _: None)
    with pytest.raises(FindingError):
        Trial("1", "machine", tmp_path).run(1)
