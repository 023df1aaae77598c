"""What all models share: base class, backbone, calling convention, outputs, heads, losses, training steps.

Nothing here knows a family.
"""
