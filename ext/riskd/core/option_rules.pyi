"""Margin of short options: what an option rule asks for.

For the core alone: nothing of it is visible to Python.
"""
