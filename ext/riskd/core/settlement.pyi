"""Positions that change without an order: loaded, funded, settled.

For the core alone: nothing of it is visible to Python.
"""
