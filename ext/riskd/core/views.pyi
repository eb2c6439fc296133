"""What Python sees of a book: rows, and the canonical state as text (docs/state.md).

For the core alone: nothing of it is visible to Python.
"""
