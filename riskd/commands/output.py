"""What commands print: aligned names and values, or JSON."""

import json
from collections.abc import Iterable, Sequence


def print_figures(figures: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    rows = list(figures)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def print_json(figures: Iterable[tuple[str, str]]) -> None:
    """Print names and values as one JSON object; names with underscores."""
    print(json.dumps({name.replace(" ", "_"): value for name, value in figures}, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], alignment: str) -> None:
    """Print columns; alignment has one < or > for each."""
    columns = zip(header, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for row in (header, *rows):
        cells = zip(row, alignment, widths, strict=True)
        print("  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip())
