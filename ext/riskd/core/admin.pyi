"""Changes from outside the hot door: collateral, margin transfers, modes, leverage, trading states.

For the core alone: nothing of it is visible to Python.
"""
