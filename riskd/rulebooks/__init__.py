"""Venue rules as data: what they are (schema), which keys there are (keys) and what must hold
(laws), how they are read (loader) and written (writer), which version is in force (versions), taken
over from venues (importers) and put into an engine (installer). See docs/rulebooks.md.
"""

from riskd.rulebooks.importers import export_ccxt, import_ccxt, import_tiers
from riskd.rulebooks.installer import ApplyError, RuleEngine, apply
from riskd.rulebooks.laws import validate
from riskd.rulebooks.loader import load, loads, names
from riskd.rulebooks.schema import (
    AssetRule,
    InstrumentRule,
    LevelsRule,
    ParameterRule,
    Provenance,
    Rulebook,
    RulebookError,
    ScheduleRule,
    TierRule,
    VenueRule,
)
from riskd.rulebooks.terms import left_out, unsupported
from riskd.rulebooks.versions import has_versions, next_change, select
from riskd.rulebooks.writer import to_toml

__all__ = [
    "ApplyError",
    "AssetRule",
    "InstrumentRule",
    "LevelsRule",
    "ParameterRule",
    "Provenance",
    "RuleEngine",
    "Rulebook",
    "RulebookError",
    "ScheduleRule",
    "TierRule",
    "VenueRule",
    "apply",
    "export_ccxt",
    "has_versions",
    "import_ccxt",
    "import_tiers",
    "left_out",
    "load",
    "loads",
    "names",
    "next_change",
    "select",
    "to_toml",
    "unsupported",
    "validate",
]
