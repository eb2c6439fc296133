"""Firms, owners and limits: how they are set.

For the core alone: nothing of it is visible to Python.
"""
