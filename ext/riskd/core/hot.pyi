"""The hot requests of native threads: an engine without its Python object.

For the core alone: nothing of it is visible to Python.
"""
