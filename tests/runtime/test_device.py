"""runtime/device.py: the devices that scripts ask for, and those that TensorFlow takes."""

import pytest
import tensorflow as tf

from tfmodels import TFLlamaForCausalLM
from tfmodels.runtime.device import check_device_map

HERE = {
    "cpu": (["cpu", "CPU", {"": "cpu"}], ["cuda", "cuda:1", 0, {"": 0}, {"model": "cpu", "lm_head": "disk"}, "meta"]),
    "gpu": (["cuda", "cuda:0", 0, {"": 0}, {"a": "cuda", "b": "cuda:0"}], ["cpu", "cuda:1", 1, {"a": 0, "b": 1}]),
}


@pytest.mark.parametrize("device", HERE)
def test_device_map_is_what_tensorflow_takes_or_refused(device, monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"] * (device == "gpu"))
    same, other = HERE[device]
    for device_map in (None, "auto", "balanced", "balanced_low_0", "sequential", {}, *same):
        check_device_map(device_map)
    for device_map in other:
        place = "the first GPU" if device == "gpu" else "the CPU, as it sees no GPU"
        with pytest.raises(ValueError, match=f"device_map=.* names a device .* places a model on {place}. Choose"):
            check_device_map(device_map)
    with pytest.raises(ValueError, match="device_map='meta' names a device that TensorFlow would not take"):
        TFLlamaForCausalLM.from_pretrained("stories260K", device_map="meta")
