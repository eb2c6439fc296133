"""A book of one account, to ask what would be.

For the core alone: nothing of it is visible to Python.
"""
