"""Sentence embeddings: the encoder, its files in sentence-transformers' layout, and pooling.

The transformer inside is any family's model.
"""
