"""Credit lines of accounts and firms: what of them backs an account's margin.

For the core alone: nothing of it is visible to Python.
"""
