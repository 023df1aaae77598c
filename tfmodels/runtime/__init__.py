"""Tracing, compiling and keeping programs, and the abilities of the device.

Nothing here knows a model.
"""
