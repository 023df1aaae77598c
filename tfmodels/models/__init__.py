"""The parts that all models share: base class, backbone, calling convention, outputs, heads, losses, training steps.

Nothing here knows a family.
"""

from tfmodels.runtime.backend import check_backend

check_backend()
