"""Each mistake in a file of format 2 is refused with file, key, value and bound, word for word.

tests/data/rulebook_format2.toml uses each section and family once; a row of rulebook_mistakes.jsonl
is one mistake in it: what is replaced, by what, and the message.
"""

import json
from pathlib import Path

import pytest

from riskd.rulebooks import RulebookError, left_out, load, loads, names, to_toml, unsupported
from riskd.rulebooks.keys import COLLATERAL, LEVELS, OPTION_FAMILIES, RULE, SCHEDULE_FAMILIES
from riskd.rulebooks.layouts import LAYOUTS
from riskd.rulebooks.schema import KINDS
from riskd.rulebooks.writer import INSTRUMENT_KEYS

DATA = Path(__file__).parents[1] / "data"
GOOD = (DATA / "rulebook_format2.toml").read_text(encoding="utf-8")
ROWS = (DATA / "rulebook_mistakes.jsonl").read_text(encoding="utf-8").splitlines()
PAGE = (Path(__file__).parents[2] / "docs" / "rulebooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", [json.loads(row) for row in ROWS], ids=lambda row: row["message"])
def test_a_mistake_is_refused_word_for_word(row: dict[str, str]) -> None:
    assert row["old"] in GOOD
    with pytest.raises(RulebookError) as caught:
        loads(GOOD.replace(row["old"], row["new"], 1), "tiny.toml")
    assert str(caught.value) == row["message"]


def test_the_file_without_mistakes_is_the_same_after_a_round_trip() -> None:
    book = loads(GOOD)
    assert loads(to_toml(book)) == book
    assert {rule.family for rule in book.schedules} == set(SCHEDULE_FAMILIES)


ODD_VALUES = ("true", '""', "[]", "{}", "nan", "-1", "1e39", "1e999999999", "1979-05-27", "[{}]")


def test_an_odd_value_is_refused_or_taken_but_never_a_crash() -> None:
    lines = GOOD.splitlines()
    for number, line in enumerate(lines):
        for odd in ODD_VALUES if " = " in line else ():
            changed = [f"{line.split(' = ')[0]} = {odd}"]
            text = "\n".join(lines[:number] + changed + lines[number + 1 :])
            try:
                book = loads(text, "odd.toml")
            except RulebookError:
                continue
            assert loads(to_toml(book)) == book


def every_key() -> list[str]:
    tables = (RULE, *SCHEDULE_FAMILIES.values(), *OPTION_FAMILIES.values(), COLLATERAL, LEVELS)
    keys = [key for table in tables for key in table]
    columns = [column.name for key in keys for column in key.columns]
    words = [*SCHEDULE_FAMILIES, *OPTION_FAMILIES, *(word for key in keys for word in key.words)]
    return sorted({*(key.name for key in keys), *columns, *words, *INSTRUMENT_KEYS, *KINDS})


@pytest.mark.parametrize("key", every_key())
def test_the_documentation_has_each_key_and_word(key: str) -> None:
    assert f"`{key}`" in PAGE


def test_the_documentation_lists_what_is_packaged_and_imported() -> None:
    for name in (*names(), *LAYOUTS):
        assert f"`{name}`" in PAGE


def test_the_documentation_says_which_packaged_rulebooks_an_engine_takes() -> None:
    table = PAGE[PAGE.index("| packaged") :].split("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    engine = {name.strip(" `"): row[3].strip() for row in rows for name in row[1].split(",")}
    for name in names():
        book = load(name)
        assert engine[name].startswith("refused") == bool(unsupported(book)), name
        if not engine[name].startswith("refused"):
            assert ("left out" in engine[name]) == bool(left_out(book)), name
