"""The ladder of a pre-trade check (docs/decision.md, CheckOrder): reads the book, changes nothing.

For the core alone: nothing of it is visible to Python.
"""
