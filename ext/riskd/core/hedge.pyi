"""One liquidation price for the position sides of a contract.

For the core alone: nothing of it is visible to Python.
"""
