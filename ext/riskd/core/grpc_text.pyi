"""What gRPC writes into headers: timeouts, messages, details of errors.

For the core alone: nothing of it is visible to Python.
"""
