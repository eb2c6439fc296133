"""The slow, obvious twin of the compiled engine: the oracle of the tests.

Written from docs/decision.md, docs/instruments.md, docs/limits.md and docs/state.md, in their order
and words, with exact integers and fractions, decimals of 90 digits for Black-76, no caches and no
code in common with ext/riskd/core. Every figure is computed anew from accounts, positions and
working orders when it is asked for.

numbers, families (rates), margin and options are arithmetic without state. The engine is one class
in layers, each in a module of its own: state (tables), figures (margin of what is there), levels
and limits (of docs/limits.md), ladder (the rules of an order), then what is asked of it: decision,
amendment, batch, execution, releases, marks, definitions, changes, limit_changes, queries,
limit_queries, canonical.
"""

from riskd.reference.black import black76, normal_cdf
from riskd.reference.engine import (
    METHOD_ADVANCE_TIME,
    METHOD_BATCH_CHECK_ORDERS,
    METHOD_CHECK_AMENDMENT,
    METHOD_CHECK_ORDER,
    METHOD_GET_RESERVATION,
    METHOD_REPORT_EXECUTION,
    METHOD_REPORT_MARKS,
    ReferenceEngine,
)
from riskd.reference.state import (
    SCOPE_ACCOUNT,
    SCOPE_FIRM,
    SCOPE_GATEWAY,
    SCOPE_INSTRUMENT,
    SCOPE_SERVICE,
    Order,
)
from riskd.reference.wire import MalformedRequestError

__all__ = [
    "METHOD_ADVANCE_TIME",
    "METHOD_BATCH_CHECK_ORDERS",
    "METHOD_CHECK_AMENDMENT",
    "METHOD_CHECK_ORDER",
    "METHOD_GET_RESERVATION",
    "METHOD_REPORT_EXECUTION",
    "METHOD_REPORT_MARKS",
    "SCOPE_ACCOUNT",
    "SCOPE_FIRM",
    "SCOPE_GATEWAY",
    "SCOPE_INSTRUMENT",
    "SCOPE_SERVICE",
    "MalformedRequestError",
    "Order",
    "ReferenceEngine",
    "black76",
    "normal_cdf",
]
