"""Settings: where they come from, which stands over which, and one small case a mistake."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from riskd.settings import (
    Settings,
    SettingsError,
    Specification,
    Value,
    add_flags,
    from_arguments,
    load,
    parse_address,
    reference_table,
    specifications,
)

DOCS = Path(__file__).parents[2] / "docs" / "services.md"


def write(folder: Path, text: str) -> str:
    path = folder / "riskd.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_default_is_within_its_bounds() -> None:
    for item in specifications():
        assert item.check(item.default, "default") == item.default
        assert item.doc.endswith(".")
    assert load(environment={}).settings == Settings()


def test_flag_stands_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "worker_threads = 2\naccounts_max = 3\norders_max = 4\n")
    environment = {"RISKD_WORKER_THREADS": "5", "RISKD_ACCOUNTS_MAX": "6"}
    loaded = load(path=path, environment=environment, flags={"worker_threads": "7"})
    assert loaded.settings.worker_threads == 7
    assert loaded.settings.accounts_max == 6
    assert loaded.settings.orders_max == 4
    assert loaded.settings.gateways_max == Settings().gateways_max
    assert loaded.origins["worker_threads"] == "flag --worker-threads"
    assert loaded.origins["accounts_max"] == "environment RISKD_ACCOUNTS_MAX"
    assert loaded.origins["orders_max"] == f"file {path}"
    assert loaded.origins["gateways_max"] == "default"


def test_file_is_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, 'rulebooks = ["binance_usdm", "./mine.toml"]\nreflection = false\n')
    settings = load(environment={"RISKD_CONFIG": path}).settings
    assert settings.rulebooks == ("binance_usdm", "./mine.toml")
    assert not settings.reflection


def test_lists_and_booleans_of_the_environment() -> None:
    environment = {"RISKD_RULEBOOKS": "a, b", "RISKD_REFLECTION": "false"}
    settings = load(environment=environment).settings
    assert settings.rulebooks == ("a", "b")
    assert not settings.reflection
    assert load(environment={"RISKD_RULEBOOKS": ""}).settings.rulebooks == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker_threads = 0", r"worker_threads is 0 \(file .*\): must be integer, 1 to 256"),
        ("worker_threads = 257", "worker_threads is 257"),
        ("worker_threads = 1.5", "worker_threads is 1.5"),
        ('worker_threads = "8"', "worker_threads is '8'"),
        ("worker_threads = true", "worker_threads is True"),
        ("reflection = 1", "reflection is 1 .*: must be true or false"),
        ('log_level = "loud"', "must be debug or info or warning or error"),
        ('rulebooks = "binance_usdm"', "rulebooks is 'binance_usdm' .*: must be list of texts"),
        ("rulebooks = [1]", "rulebooks is .* must be list of texts"),
        ('rulebooks = [""]', "rulebooks is .* must be list of texts"),
        ("worker_thread = 8", "worker_thread .* is no setting; did you mean worker_threads?"),
        ("[control]\naddress = 1", "control .* is no setting"),
        ("worker_threads = ", "is not valid TOML"),
        ('control_address = "localhost"', "must be host:port"),
        ('control_address = "127.0.0.1:65536"', "must be host:port, port 0 to 65535"),
        ('control_address = "::1:50051"', r"IPv6 as \[::1\]:50051"),
        ('control_address = "0.0.0.0:50051"', r"is not loopback .* \(from file "),
        ('control_address = "risk.example.com:50051"', "allow_plaintext_off_loopback = true"),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(path=write(tmp_path, text), environment={})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RISKD_WORKER_THREADS": "many"}, "is 'many' .environment RISKD_WORKER_THREADS.: must be"),
        ({"RISKD_WORKER_THREADS": ""}, "worker_threads is ''"),
        ({"RISKD_WORKER_THREADS": "1_0"}, "worker_threads is '1_0'"),
        ({"RISKD_WORKER_THREADS": "9" * 30}, "worker_threads is '9999"),
        ({"RISKD_REFLECTION": "yes"}, "reflection is 'yes'"),
        ({"RISKD_CONTROL_ADDRESS": "10.0.0.1:1"}, "from environment RISKD_CONTROL_ADDRESS"),
        ({"RISKD_CONFIG": "/no/such/file.toml"}, "cannot read settings file /no/such/file.toml"),
    ],
)
def test_mistake_in_the_environment_is_named(environment: Mapping[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environment=environment)


def test_a_largest_request_that_no_thread_has_memory_for_is_refused() -> None:
    # 64 MiB for all threads, of which a connection has at most half.
    assert Settings(listener_threads=32).receive_message_bytes_max == 1 << 20
    assert Settings(receive_message_bytes_max=32 << 20).listener_threads == 1
    cases: list[tuple[dict[str, Any], int]] = [
        ({"listener_threads": 33}, 1_016_800),
        ({"listener_threads": 64}, 524_288),
        ({"receive_message_bytes_max": (32 << 20) + 1}, 33_554_432),
    ]
    for values, bound in cases:
        with pytest.raises(
            SettingsError, match=f"receive_message_bytes_max .* listener_threads: .*most {bound},"
        ):
            Settings(**values)
        # The control server alone has no such bound.
        Settings(**values, listener_addresses=())


def test_plain_text_off_loopback_must_be_asked_for() -> None:
    flags: dict[str, Value] = {
        "control_address": "0.0.0.0:50051",
        "allow_plaintext_off_loopback": True,
    }
    loaded = load(environment={}, flags=flags)
    assert loaded.settings.control_address == "0.0.0.0:50051"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert load(environment={"RISKD_CONTROL_ADDRESS": f"{host}:0"}).warnings == ()


def test_address_is_split_at_the_port() -> None:
    assert parse_address("[::1]:50051") == ("::1", 50051)
    assert parse_address("localhost:0") == ("localhost", 0)


def test_environment_of_others_is_left_alone_and_a_typo_is_reported() -> None:
    environment = {"RISKD_SERVICE_HOST": "10.0.0.1", "RISKD_WORKER_THREAD": "8"}
    assert load(environment=environment).warnings == (
        "environment variable RISKD_WORKER_THREAD is no setting; "
        "did you mean RISKD_WORKER_THREADS?",
    )


def test_effective_lines_can_be_read_back_as_a_file(tmp_path: Path) -> None:
    flags: dict[str, Value] = {"rulebooks": "a,b", "reflection": False, "log_level": "debug"}
    loaded = load(environment={}, flags=flags)
    lines = loaded.effective_lines()
    assert len(lines) == len(specifications())
    assert any(line.startswith("reflection = false") and "# flag" in line for line in lines)
    again = load(path=write(tmp_path, "\n".join(lines)), environment={})
    assert again.settings == loaded.settings


def test_secret_is_masked_in_lines_and_errors() -> None:
    item = Specification(
        name="password",
        kind="text",
        default="",
        doc="",
        minimum=None,
        maximum=None,
        choices=("right",),
        secret=True,
    )
    assert "hunter2" not in item.show("hunter2")
    with pytest.raises(SettingsError) as caught:
        item.check("hunter2", "file")
    assert "hunter2" not in str(caught.value)


def test_every_setting_is_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    for item in specifications():
        monkeypatch.delenv(item.variable, raising=False)
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert from_arguments(parser.parse_args([])).settings == Settings()
    given = parser.parse_args(["--no-reflection", "--answer-bytes", "65536"])
    settings = from_arguments(given).settings
    assert (settings.reflection, settings.answer_bytes) == (False, 65536)
    with pytest.raises(SettingsError, match=r"answer_bytes is 'x' \(flag --answer-bytes\)"):
        from_arguments(parser.parse_args(["--answer-bytes", "x"]))


def test_documentation_shows_the_settings_as_they_are() -> None:
    assert reference_table() in DOCS.read_text(encoding="utf-8")
