"""Kernels: what the backend lacks."""
