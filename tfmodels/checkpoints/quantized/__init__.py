"""Quantised weights in files: one module per method, which repacks a layer's tensors into the layout of `scheme`."""
