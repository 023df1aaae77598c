"""How programs are traced, compiled and kept, and what the device offers.

Nothing here knows a model.
"""
