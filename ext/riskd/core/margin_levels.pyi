"""Margin levels: how much of their margin accounts and isolated positions have left.

For the core alone: nothing of it is visible to Python.
"""
