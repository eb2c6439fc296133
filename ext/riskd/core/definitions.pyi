"""Definitions from outside: assets, margin schedules, instruments, accounts.

For the core alone: nothing of it is visible to Python.
"""
