"""The worked examples of docs/families: what a page shows is what the library says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "families"
PAGES = sorted(set(FOLDER.glob("*.md")) - {FOLDER / "README.md"})
_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_as_shown(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text()
    blocks = [(text.count("\n", 0, at.start()) + 1, at[1]) for at in _BLOCK.finditer(text)]
    assert blocks, f"{page.name} has no example"
    # One page is one session: a block goes on where the one before ended.
    parser = doctest.DocTestParser()
    examples = [
        example
        for line, block in blocks
        for example in parser.get_examples(block, f"{page.name}:{line}")
    ]
    session = doctest.DocTest(examples, {}, page.name, str(page), 0, text)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session)
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0
