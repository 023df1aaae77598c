"""Key/value caches of decoders.

Plain pytrees, so that they pass through graphs, exports and user code.
"""

from tfmodels.cache.kv import StaticCache

__all__ = ["StaticCache"]
