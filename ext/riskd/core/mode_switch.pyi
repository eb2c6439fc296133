"""Cross or isolated: the margin mode of an account's positions on an instrument.

For the core alone: nothing of it is visible to Python.
"""
