"""What a field of a request's headers is, and whether it may be there: RFC 9113, 8.2 and 8.3.

For the core alone: nothing of it is visible to Python.
"""
