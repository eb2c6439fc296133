"""Limits: how they are checked and counted.

For the core alone: nothing of it is visible to Python.
"""
