"""State: accounts, positions, working orders, instruments, remembered answers. Tables over flat memory.

For the core alone: nothing of it is visible to Python.
"""
