"""Damage to files of every kind, and what reading them comes to: `python -m tools.fuzz`."""
