"""Write the tables of docs/conformance.md from a run of `riskd conform`.

    python .ci/conformance.py [--check] [COLLECTION]

COLLECTION is the folder of the collected vectors, by default ../shared/vectors beside the
repository. With --check nothing is written: the exit status is 1 if the page is not current.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from riskd import conform

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "conformance.md"
COLLECTION = ROOT.parent / "shared" / "vectors"
COLLECTED = ("margin", "liquidation", "collateral", "options_margin")
OWN = ("families", "liquidation", "margin", "options_pricing")


def table(folder: Path, names: tuple[str, ...]) -> str:
    """Return the Markdown of a run over files of one folder."""
    lines = [
        (f"{name}.jsonl:{number}", line)
        for name in names
        for number, line in enumerate((folder / f"{name}.jsonl").read_bytes().splitlines(), 1)
        if line.strip()
    ]
    return conform.check(lines).markdown()


def filled(page: str, tables: dict[str, str]) -> str:
    """Return the page with each table between its two marks."""
    for name, text in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        page, found = marks.subn(lambda mark, text=text: f"{mark[1]}\n{text}\n\n{mark[2]}", page)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"{PAGE.name} has {found} tables {name}, not 1")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("collection", nargs="?", type=Path, default=COLLECTION)
    args = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    current = filled(
        page,
        {
            "collection": table(args.collection, COLLECTED),
            "own": table(ROOT / "tests" / "vectors", OWN),
        },
    )
    if args.check:
        return int(page != current)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
