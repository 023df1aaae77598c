"""Weights on disk: reading every known format, writing safetensors, fetching from the hub. Needs no TensorFlow to
import."""

from tfmodels.checkpoints.files import DTYPES, CheckpointError, CheckpointNotFoundError, TensorInfo
from tfmodels.checkpoints.hub import HubError, resolve
from tfmodels.checkpoints.reader import Checkpoint, open_checkpoint
from tfmodels.checkpoints.tensor_copy import to_array, to_tensor
from tfmodels.checkpoints.writer import TensorSpec, write_checkpoint

__all__ = [
    "DTYPES",
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFoundError",
    "HubError",
    "TensorInfo",
    "TensorSpec",
    "open_checkpoint",
    "resolve",
    "to_array",
    "to_tensor",
    "write_checkpoint",
]
