"""runtime/device.py: the devices that scripts ask for, and those that TensorFlow takes."""

import threading

import pytest
import tensorflow as tf

from tfmodels import TFLlamaForCausalLM
from tfmodels.runtime.device import check_device_map, host_tensor, in_turn, out_of_turn

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


@pytest.mark.parametrize("gpus, together", [([], True), (["a GPU"], False)])
def test_threads_take_turns_on_a_gpu(gpus, together, monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    met, first, second = threading.Barrier(2), [], []

    @in_turn
    def meet(found, again=True):
        try:
            met.wait(timeout=2)
        except threading.BrokenBarrierError:
            pass
        else:
            found.append("met")
        return meet(found, again=False) if again and not together else "done"  # a call within a call does not wait

    threads = [threading.Thread(target=meet, args=(found,)) for found in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert bool(first and second) is together


def test_others_go_on_while_code_of_the_user_runs(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"])
    order = []

    @in_turn
    def outer():
        order.append("in")
        return inner()

    @in_turn
    def inner():
        with out_of_turn():
            thread = threading.Thread(target=other, daemon=True)
            thread.start()
            thread.join(timeout=20)
            order.append("waited")
        order.append("back")

    @in_turn
    def other():
        order.append("other")

    outer()
    assert order == ["in", "other", "waited", "back"]
    with out_of_turn():  # without a turn nothing is left
        other()


def test_small_inputs_are_on_the_host():
    tensor = host_tensor([[1, 2]], "int32")
    assert "CPU" in tensor.device and tensor.dtype == tf.int32 and tensor.numpy().tolist() == [[1, 2]]
