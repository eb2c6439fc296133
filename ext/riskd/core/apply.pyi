"""One hot request to its reply, on one book.

For the core alone: nothing of it is visible to Python.
"""
