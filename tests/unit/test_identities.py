"""The file of identities: what it says, and every mistake that it can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from riskd.core.permits import Permits
from riskd.denials import LINES_MAX, ROWS_MAX, Denial, Denials
from riskd.identities import (
    ACCOUNT_MAX,
    FILE_BYTES_MAX,
    IDENTITIES_MAX,
    KEY_COMMON_NAME,
    KEY_SPIFFE,
    KEY_TOKEN,
    IdentitiesError,
    load,
    name_key,
    token_hash,
)
from riskd.roles import RULES, Role, Touches, reference_table

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
HASH = "ab" * 32
GATEWAY = f"""
[[identity]]
name = "gateway-3"
roles = ["gateway"]
spiffe_ids = ["spiffe://example.com/gateway/3"]
common_names = ["gateway-3"]
token_hashes = ["{HASH}"]
accounts = ["1-999", 2000, "3000"]
gateways = [3, "10-19"]
"""
FEED = """
[[identity]]
name = "feed"
roles = ["feed"]
common_names = ["feed"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identities.toml"


def test_a_file_says_who_there_is(path: Path) -> None:
    path.write_text(GATEWAY + FEED)
    gateway, feed = load(str(path))
    assert gateway.name == "gateway-3"
    assert gateway.roles == {Role.GATEWAY}
    assert gateway.keys == (
        name_key(KEY_SPIFFE, b"spiffe://example.com/gateway/3"),
        name_key(KEY_COMMON_NAME, b"gateway-3"),
        (KEY_TOKEN, bytes.fromhex(HASH)),
    )
    assert gateway.accounts == ((1, 999), (2000, 2000), (3000, 3000))
    assert gateway.gateways == ((3, 3), (10, 19))
    assert [gateway.may_touch(each) for each in (0, 1, 999, 1000, 2000)] == [
        False, True, True, False, True,
    ]  # fmt: skip
    assert not gateway.may_touch_all()
    assert not any(feed.may_touch(each) for each in (0, 1, ACCOUNT_MAX))


def test_all_accounts_are_all(path: Path) -> None:
    path.write_text(GATEWAY.replace('["1-999", 2000, "3000"]', '"all"'))
    (gateway,) = load(str(path))
    assert gateway.may_touch_all()
    path.write_text(GATEWAY.replace('["1-999", 2000, "3000"]', f'["1-{ACCOUNT_MAX}"]'))
    (gateway,) = load(str(path))
    assert not gateway.may_touch_all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[identity]]", "identity", "not valid TOML"),
        (GATEWAY, "", r"identity: must be \[\[identity\]\] tables, at least one"),
        (GATEWAY, "identity = 3", r"identity: must be \[\[identity\]\] tables"),
        (GATEWAY, GATEWAY + "[other]", r"other is no key: must be \[\[identity\]\] tables"),
        ('name = "gateway-3"', "", "identity 1: name is None: must be 1 to 63 letters"),
        ('"gateway-3"\nroles', '"a b"\nroles', "identity 1: name is 'a b': must be"),
        ('"gateway-3"\nroles', '"a/b"\nroles', "identity 1: name is 'a/b': must be"),
        ("roles", "rolls", r"identity 1 \(gateway-3\): rolls is no key: must be one of name, "),
        ('["gateway"]', '["boss"]', "roles has 'boss': must be one of gateway, trader, "),
        ('["gateway"]', "[1]", "roles has 1: must be one of"),
        ('["gateway"]', '"gateway"', "roles is 'gateway': must be a list of 1 to 6 values"),
        ('["gateway"]', "[]", "roles is 0 values: must be a list of 1 to 6 values"),
        ('["gateway"]', '["trader"]', "gateways is there: only the role gateway has it"),
        ("gateways =", "# ", "gateways is not there: the role gateway needs it"),
        ("accounts =", "# ", "accounts is not there: must be a list or 'all'"),
        ('["1-999", 2000, "3000"]', "[]", "accounts is 0 values: must be a list of 1 to 1024"),
        ('["1-999", 2000, "3000"]', '"some"', "accounts is 'some': must be a list of 1 to 1024"),
        ("2000", "0", "accounts has 0: must be a number or 'first-last', 1 to 1844674"),
        ("2000", "-5", "accounts has -5: must be"),
        ("2000", "true", "accounts has True: must be"),
        ("2000", "2e3", "accounts has 2000.0: must be"),
        ("2000", '"9-1"', "accounts has '9-1': must be"),
        ("2000", f'"1-{2**64}"', "accounts has '1-18446744073709551616': must be"),
        ("2000", "999", "accounts has 999 twice"),
        ("2000", "0x" + "f" * 5_000, "Exceeds the limit"),
        ("2000", "[" * 5_000, "not valid TOML"),
        ("10-19", "10-4294967296", "gateways has '10-4294967296': must be .* 1 to 4294967295"),
        ("spiffe://", "https://", "spiffe_ids has 'https://example.com/gateway/3': must be spiffe"),
        ('common_names = ["gateway-3"]', 'common_names = [""]', "common_names has '': must be"),
        ('common_names = ["gateway-3"]', 'subjects = ["ü"]', "subjects has 'ü': must be"),
        (HASH, HASH[1:], "token_hashes has a value that is no hash: must be 64 lower-case"),
        (HASH, HASH.upper(), "token_hashes has a value that is no hash"),
        (f'["{HASH}"]', f'["{HASH}", "{HASH}"]', "is known by the same thing twice"),
        (GATEWAY, GATEWAY + GATEWAY, "name 'gateway-3' is there twice"),
        (GATEWAY, GATEWAY + GATEWAY.replace('"gateway-3"\nr', '"b"\nr'),
         "gateway-3 and b are known by the same SPIFFE id"),
        (GATEWAY, FEED.replace("common_names", "# "), "must be known by one of spiffe_ids, "),
        (GATEWAY, FEED + "accounts = [1]", "accounts is there: the role feed touches none"),
        (GATEWAY, FEED * (IDENTITIES_MAX + 1), "4097 identities: must be at most 4096"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(path: Path, old: str, new: str, message: str) -> None:
    assert old in GATEWAY
    path.write_text(GATEWAY.replace(old, new))
    with pytest.raises(IdentitiesError, match=message) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert HASH not in str(caught.value)


def test_a_file_that_cannot_be_used_is_named(path: Path) -> None:
    with pytest.raises(IdentitiesError, match="No such file"):
        load(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(IdentitiesError, match="not valid TOML"):
        load(str(path))
    path.write_text(GATEWAY + "#" * FILE_BYTES_MAX)
    with pytest.raises(IdentitiesError, match=f"at most {FILE_BYTES_MAX} bytes"):
        load(str(path))
    path.write_text(GATEWAY)
    path.chmod(0o646)
    with pytest.raises(IdentitiesError, match="has mode 646: nobody but"):
        load(str(path))


def test_a_token_in_the_place_of_its_hash_is_not_shown(path: Path) -> None:
    path.write_text(GATEWAY.replace(HASH, "riskd_secret"))
    with pytest.raises(IdentitiesError) as caught:
        load(str(path))
    assert "secret" not in str(caught.value)


def test_the_hash_is_sha_256() -> None:
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert token_hash("abc") == expected


def test_the_docs_have_the_table() -> None:
    assert reference_table() in DOCS.read_text(encoding="utf-8")


def test_messages_of_a_stream_are_for_who_may_open_it() -> None:
    service = "riskd.v1.OrderRiskService/"
    streamed = ("CheckOrder", "CheckAmendment", "ReportExecution")
    assert {RULES[service + each] for each in streamed} == {RULES[service + "StreamOrders"]}
    assert RULES[service + "StreamOrders"].touches is Touches.ORDERS


def test_bad_rows_change_nothing() -> None:
    permits = Permits()
    (permission,) = permits.replace([("one", 1, 0, ((0, 5),), (), [(1, bytes(32))])])
    assert permission.name == "one"
    with pytest.raises(ValueError, match="a key of 31 bytes: must have 32"):
        permits.replace([("two", 1, 0, (), (), [(1, bytes(31))])])
    with pytest.raises(ValueError, match="must have 1 to 63 bytes"):
        permits.replace([("x" * 64, 1, 0, (), (), [])])
    # What was given stays good for as long as it is used.
    permits.replace([])
    assert permission.name == "one"


# --- denials -----------------------------------------------------------------------------------


def denial(identity: str = "a", reason: str = "METHOD_NOT_PERMITTED", count: int = 1) -> Denial:
    return Denial("control", reason, identity, "X/Y", 1, 1, "peer", count=count)


def test_denials_of_a_kind_are_one_row_and_every_one_is_counted() -> None:
    denials = Denials(lambda: 0.0)
    for _ in range(3):
        denials.add(denial())
    denials.add(denial("b", count=5))
    denials.add(denial())
    assert [(row.identity, row.count) for row in denials.rows()] == [("a", 4), ("b", 5)]
    assert denials.counts() == {("control", "METHOD_NOT_PERMITTED"): 9}


def test_rows_are_bounded_and_the_oldest_goes_first() -> None:
    denials = Denials(lambda: 0.0)
    for number in range(ROWS_MAX + 1):
        denials.add(denial(str(number)))
    names = [row.identity for row in denials.rows()]
    assert (len(names), names[0], names[-1]) == (ROWS_MAX, str(ROWS_MAX), "1")
    assert sum(denials.counts().values()) == ROWS_MAX + 1


def test_a_flood_writes_a_bounded_number_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    denials = Denials(lambda: now_s)
    for _ in range(100_000):
        denials.add(denial())
        denials.summarise()
    assert len(caplog.records) == LINES_MAX
    now_s = 10.0
    denials.summarise()
    denials.summarise()
    assert len(caplog.records) == LINES_MAX + 1
    counts = vars(caplog.records[-1])["fields"]["counts"]
    assert counts == {"METHOD_NOT_PERMITTED": 100_000 - LINES_MAX}
    # What was saved in ten seconds is written again.
    for _ in range(1000):
        denials.add(denial())
    assert len(caplog.records) == 2 * LINES_MAX + 1
