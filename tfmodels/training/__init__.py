"""Data, metrics, optimizer helpers and adapters for fine-tuning by Keras's own `fit`."""
