"""Configurations: JSON in and out, the spellings of transformers 4 and 5 normalised once.

A family's own fields are in its family file.
"""
