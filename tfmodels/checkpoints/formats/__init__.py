"""Readers of single weight files, one module per format.

Each checks a file's header on opening and reads tensors on request.
"""
