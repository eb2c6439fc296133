"""The public layouts of margin tiers: how each venue answers, and what that means.

The envelope of a venue's answer ({"response": ...}, {"data": ...}) may be there or not. A layout
reads what is printed; what follows from it by the venue's documentation says so beside the code.
"""

from collections.abc import Mapping
from typing import Final

from riskd.rulebooks.layouts.ascendex import ASCENDEX
from riskd.rulebooks.layouts.binance import BINANCE
from riskd.rulebooks.layouts.bingx import BINGX
from riskd.rulebooks.layouts.bitmex import BITMEX
from riskd.rulebooks.layouts.ccxt import CCXT
from riskd.rulebooks.layouts.delta import DELTA
from riskd.rulebooks.layouts.dydx import DYDX_V3, DYDX_V4
from riskd.rulebooks.layouts.gate import GATE
from riskd.rulebooks.layouts.hyperliquid import HYPERLIQUID
from riskd.rulebooks.layouts.kraken import KRAKEN
from riskd.rulebooks.layouts.okx import OKX
from riskd.rulebooks.layouts.phemex import PHEMEX
from riskd.rulebooks.markets import Layout

LAYOUTS: Final[Mapping[str, Layout]] = {
    layout.name: layout
    for layout in (
        ASCENDEX,
        BINANCE,
        BINGX,
        BITMEX,
        CCXT,
        DELTA,
        DYDX_V3,
        DYDX_V4,
        GATE,
        HYPERLIQUID,
        KRAKEN,
        OKX,
        PHEMEX,
    )
}


def detect(document: object) -> Layout | None:
    """Return the only layout that a document can be; None if there is none, or several."""
    found = [layout for layout in LAYOUTS.values() if layout.is_it(document)]
    return found[0] if len(found) == 1 else None
