"""A file of limits is read as it is written, or refused with file, key, value and bound."""

from pathlib import Path

import pytest

from riskd import limits_file
from riskd.core.engine import Engine
from riskd.limits_file import LimitsFileError
from riskd.rulebooks import installer, loader
from riskd.v1 import types_pb2

ACCOUNT = types_pb2.LIMIT_SCOPE_ACCOUNT
FIRM = types_pb2.LIMIT_SCOPE_FIRM
GATEWAY = types_pb2.LIMIT_SCOPE_GATEWAY
NOW_NS = 1_700_000_000_000_000_000

WHOLE = """
[[limit]]
account = 7
kind = "POSITION_LOTS_MAX"
instrument = "BTC-PERP"
value = 2.5

[[limit]]
firm = 1
kind = "gross_exposure_max"
value = "100000.25"
action = "soft"

[[limit]]
gateway = 3
kind = "ORDER_RATE_MAX"
value = 100
burst = 20

[[limit]]
account = 7
kind = "DENIED"
instrument = "ETH-PERP"
"""


@pytest.fixture
def engine() -> Engine:
    """Textbook instruments, firm 1 with accounts 7 and 8, and 8 under 7."""
    engine = Engine()
    installer.apply(loader.load("textbook"), engine)
    asset_id = engine.assets()[0].asset_id
    engine.create_firm(1, asset_id)
    for account_id in (7, 8):
        engine.create_account(account_id, asset_id, types_pb2.MARGIN_MODE_CROSS, 1000, 0)
        parent_id = 7 if account_id == 8 else 0
        engine.set_account_owner(account_id, 1, parent_id, NOW_NS)
    return engine


def table(text: str) -> str:
    return f"[[limit]]\n{text}"


def test_whole_file_reads_as_it_is_written() -> None:
    lots, gross, rate, denied = limits_file.loads(WHOLE, "limits.toml")
    assert (lots.scope, lots.scope_id, lots.instrument) == (ACCOUNT, 7, "BTC-PERP")
    assert (lots.kind, lots.value) == (types_pb2.LIMIT_KIND_POSITION_LOTS_MAX, "2.5")
    assert lots.action == types_pb2.LIMIT_ACTION_HARD
    assert (gross.scope, gross.scope_id, gross.instrument) == (FIRM, 1, "")
    assert (gross.value, gross.action) == ("100000.25", types_pb2.LIMIT_ACTION_SOFT)
    assert (rate.scope, rate.value, rate.burst) == (GATEWAY, "100", 20)
    assert (denied.value, denied.burst) == ("", 0)


def test_number_is_read_as_the_decimal_that_is_written() -> None:
    text = table('account = 1\nkind = "DAILY_LOSS_MAX"\nvalue = 0.10000000000000000001')
    (rule,) = limits_file.loads(text)
    assert rule.value == "0.10000000000000000001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "limits.toml: limit: must be one or more tables [[limit]]"),
        ("limit = 3", "limits.toml: limit = 3: must be one or more tables [[limit]]"),
        ("x = 1", "limits.toml: x = 1: unknown key; known here: limit"),
        ("[[limit]", "limits.toml: is not TOML"),
        (table('kind = "DENIED"'), "limits.toml: limit[0]: must name one of gateway, account"),
        (table("account = 1\nfirm = 1"), "it names account and firm"),
        (table("account = 0"), "limits.toml: limit[0].account = 0: must be 1 to 2^64 - 1"),
        (table("firm = 4294967296"), "limit[0].firm = 4294967296: must be 1 to 2^32 - 1"),
        (table("account = true"), "limit[0].account = True: must be 1 to 2^64 - 1"),
        (table("account = 1"), "limit[0].kind: is missing"),
        (table('account = 1\nkind = "MOOD"'), "limit[0].kind = 'MOOD': must be one of ORDER_"),
        (
            table('gateway = 1\nkind = "DAILY_LOSS_MAX"\nvalue = 1'),
            "limit[0].kind = 'DAILY_LOSS_MAX': must be ORDER_RATE_MAX on a gateway",
        ),
        (
            table('account = 1\nkind = "POSITION_LOTS_MAX"\nvalue = 1'),
            "limit[0].instrument: is missing: POSITION_LOTS_MAX needs one",
        ),
        (
            table('account = 1\nkind = "DAILY_LOSS_MAX"\ninstrument = "X"\nvalue = 1'),
            "limit[0].instrument = 'X': must be left out for DAILY_LOSS_MAX",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\ninstrument = 3\nvalue = 1'),
            "limit[0].instrument = 3: must be a symbol",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"'),
            "limit[0].value: must be a number for OPEN_ORDERS_MAX",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = nan'),
            "limit[0].value = NaN: must be a number for OPEN_ORDERS_MAX",
        ),
        (
            table('account = 1\nkind = "DENIED"\ninstrument = "X"\nvalue = 1'),
            "limit[0].value = 1: must be left out for DENIED",
        ),
        (
            table('account = 1\nkind = "ORDER_RATE_MAX"\nvalue = 1'),
            "limit[0].burst: must be 1 to 1000000 for ORDER_RATE_MAX",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = 1\nburst = 1'),
            "limit[0].burst = 1: must be left out for OPEN_ORDERS_MAX",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = 1\naction = "MILD"'),
            "limit[0].action = 'MILD': must be HARD or SOFT",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = 1\nvalu = 1'),
            "limit[0].valu = 1: unknown key",
        ),
        (
            table('account = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = 1\n') * 2,
            "limits.toml: limit[1]: the same limit is limit[0]",
        ),
    ],
)
def test_file_that_is_wrong_is_refused_by_key(text: str, message: str) -> None:
    with pytest.raises(LimitsFileError) as caught:
        limits_file.loads(text, "limits.toml")
    assert message in str(caught.value)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LimitsFileError, match=r"none\.toml: No such file"):
        limits_file.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(LimitsFileError, match="is not UTF-8"):
        limits_file.load(tmp_path / "binary.toml")


def test_applied_file_sets_a_level_before_those_under_it(engine: Engine) -> None:
    # Written the other way round: a child first would be looser than a parent that comes later.
    text = "".join(
        table(f'{scope} = {scope_id}\nkind = "OPEN_ORDERS_MAX"\nvalue = {value}\n')
        for scope, scope_id, value in (("account", 8, 5), ("account", 7, 6), ("firm", 1, 7))
    )
    assert limits_file.apply(limits_file.loads(text), engine, NOW_NS) == 3
    assert [(row.scope, row.scope_id, row.value) for row in engine.limits()] == [
        (ACCOUNT, 7, 6),
        (ACCOUNT, 8, 5),
        (FIRM, 1, 7),
    ]
    looser = table('account = 8\nkind = "OPEN_ORDERS_MAX"\nvalue = 7')
    with pytest.raises(LimitsFileError, match=r"limit\[0\]: LIMIT_LOOSER_THAN_PARENT"):
        limits_file.apply(limits_file.loads(looser), engine, NOW_NS)


def test_applied_file_can_be_the_whole_of_the_limits(engine: Engine) -> None:
    text = table('account = 7\nkind = "OPEN_ORDERS_MAX"\nvalue = 5\n')
    limits_file.apply(limits_file.loads(text), engine, NOW_NS)
    other = table('account = 7\nkind = "DAILY_LOSS_MAX"\nvalue = 5\n')
    limits_file.apply(limits_file.loads(other), engine, NOW_NS)
    assert len(engine.limits()) == 2
    limits_file.apply(limits_file.loads(other), engine, NOW_NS, replace=True)
    assert [row.kind for row in engine.limits()] == [types_pb2.LIMIT_KIND_DAILY_LOSS_MAX]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'account = 9\nkind = "OPEN_ORDERS_MAX"\nvalue = 1',
            "f.toml: limit[0].account = 9: no such account",
        ),
        (
            'firm = 9\nkind = "OPEN_ORDERS_MAX"\nvalue = 1',
            "f.toml: limit[0].firm = 9: no such firm",
        ),
        (
            'account = 7\nkind = "OPEN_ORDERS_MAX"\ninstrument = "X"\nvalue = 1',
            "f.toml: limit[0].instrument = 'X': no such instrument",
        ),
        (
            'account = 7\nkind = "OPEN_ORDERS_MAX"\nvalue = 1.5',
            "f.toml: limit[0].value = '1.5': must be a multiple of 1",
        ),
        (
            'account = 7\nkind = "DAILY_LOSS_MAX"\nvalue = -1',
            "f.toml: limit[0].value = '-1': must be 0 to",
        ),
    ],
)
def test_limit_that_does_not_fit_the_engine_changes_nothing(
    engine: Engine, text: str, message: str
) -> None:
    before = engine.state_hash()
    good = table('firm = 1\nkind = "OPEN_ORDERS_MAX"\nvalue = 1\n')
    with pytest.raises(LimitsFileError) as caught:
        limits_file.apply(limits_file.loads(table(text) + "\n" + good, "f.toml"), engine, NOW_NS)
    assert message in str(caught.value)
    assert engine.state_hash() == before
