"""State: accounts, positions, working orders, instruments, remembered answers.

For the core alone: nothing of it is visible to Python.
"""
