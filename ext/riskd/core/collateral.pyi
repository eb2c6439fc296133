"""What balances of other assets count as collateral.

For the core alone: nothing of it is visible to Python.
"""
