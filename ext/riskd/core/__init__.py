"""The compiled core: exact money, margin, decisions, wire codec."""
