"""Firms, owners, and the sums of a level.

For the core alone: nothing of it is visible to Python.
"""
