"""riskd: pre-trade risk and margin for crypto derivatives.

Start at riskd.cli (commands), riskd.wiring (how the parts meet) and docs/decision.md (the rules).
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("riskd")
except PackageNotFoundError:  # Run from a source tree that was never installed.
    __version__ = "0+unknown"

__all__ = ["__version__"]
