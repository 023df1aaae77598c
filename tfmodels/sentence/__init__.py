"""Sentence embeddings: the encoder, its files in sentence-transformers' layout (config), and pooling.

The transformer inside is any family's model.
"""
