"""Venue rules as data: what they are (schema), how they are read (loader), written (writer),
taken over from venues (importers) and put into an engine (installer). See docs/rulebooks.md.
"""

from riskd.rulebooks.importers import import_ccxt
from riskd.rulebooks.installer import ApplyError, RuleEngine, apply
from riskd.rulebooks.loader import load, loads, names
from riskd.rulebooks.schema import (
    AssetRule,
    InstrumentRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    validate,
)
from riskd.rulebooks.writer import to_toml

__all__ = [
    "ApplyError",
    "AssetRule",
    "InstrumentRule",
    "Provenance",
    "RuleEngine",
    "Rulebook",
    "RulebookError",
    "ScheduleRule",
    "TierRule",
    "apply",
    "import_ccxt",
    "load",
    "loads",
    "names",
    "to_toml",
    "validate",
]
