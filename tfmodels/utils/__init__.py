"""Helpers without a subject of their own: JSON files, text in messages.

Nothing here imports the rest of the package.
"""
