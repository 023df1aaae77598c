"""Vocabulary files become `tokenizers` backends.

One module per file format: SentencePiece and tiktoken `tokenizer.model`, `vocab.json` with `merges.txt`, `vocab.txt`,
GGUF. Neither the sentencepiece nor the protobuf package is needed.
"""
