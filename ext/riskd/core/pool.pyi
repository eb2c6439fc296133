"""What positions add to their account's sums, and what a fill does to a position.

For the core alone: nothing of it is visible to Python.
"""
