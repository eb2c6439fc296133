"""Protobuf wire codec of the hot messages of proto/riskd/v1.

For the core alone: nothing of it is visible to Python.
"""
