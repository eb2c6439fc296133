"""Families of margin schedules: what each asks for a position or a side.

For the core alone: nothing of it is visible to Python.
"""
