from __future__ import annotations

import contextlib
import os
import pickle
import struct
import time
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfmodels.checkpoints.files import CheckpointError
from tfmodels.checkpoints.formats.tensor_pickle import PickleReader


def read(data: bytes):
    return PickleReader(memoryview(data), 0, "test").read()


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(-(2**60) + 1, 2**60 - 1), inner, max_size=4)
        | st.tuples(inner)
        | st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=12,
)


@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_containers_read_as_pickle_reads_them(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_shared_and_cyclic_values(protocol):
    shared = ["x"]
    first, second = read(pickle.dumps([shared, shared], protocol))
    assert first is second
    cycle: list = []
    cycle.append(cycle)
    result = read(pickle.dumps(cycle, protocol))
    assert result[0] is result


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_ordered_dict_with_attributes(protocol):
    value = OrderedDict(b=1, a=2)
    value._metadata = {"version": 1}
    result = read(pickle.dumps(value, protocol))
    assert result == {"b": 1, "a": 2}
    assert list(result) == ["b", "a"]


def test_ordered_dict_of_python_2():
    # GLOBAL, then [["w", 5]] as the only argument, as Python 2 pickled an OrderedDict.
    assert read(b"\x80\x02ccollections\nOrderedDict\n]]U\x01waK\x05aa\x85R.") == {"w": 5}


def test_pickles_follow_each_other():
    data = b"junk" + pickle.dumps(1, 2) + pickle.dumps("two", 2) + b"rest"
    reader = PickleReader(memoryview(data), 4, "test")
    assert (reader.read(), reader.read()) == (1, "two")
    assert data[reader.position :] == b"rest"


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"w": x}, lambda x: [{"a": (x,)}]])
def test_nothing_is_executed(tmp_path, protocol, wrap):
    target = tmp_path / "executed"
    attacks = {
        "posix.system": Runs(os.system, f"touch {target}"),
        "eval": Runs(eval, f"open({str(target)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(target)!r}, 'w')"),
        "open": Runs(open, str(target), "w"),
        "getattr": Runs(getattr, Runs(__import__, "os"), "system"),
        "pathlib": Runs(Path.touch, target),
    }
    for name, attack in attacks.items():
        data = pickle.dumps(wrap(attack), protocol)
        with pytest.raises(CheckpointError, match=r"asks for the global .*Nothing was executed"):
            read(data)
        assert not target.exists(), name
    # The attack works where pickles are executed, so the test would notice.
    pickle.loads(pickle.dumps(wrap(attacks["exec"]), protocol))
    assert target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "global os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "global __builtin__.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "global os.system"),
        (b"\x80\x04\x8c\x05torch\x8c\x0cSize.__new__\x93)R.", "global torch.Size.__new__"),
        (b"(S'true'\nios\nsystem\n.", "INST.*refused"),
        (b"(cos\nsystem\nS'true'\no.", "global os.system"),
        (b"(ctorch\nSize\no.", "OBJ.*refused"),
        (b"\x80\x02ctorch\nSize\n)\x81.", "NEWOBJ.*refused"),
        (b"\x82\x01.", "EXT1.*refused"),
        (b"Pos.system\n.", "PERSID.*refused"),
        (b"(cos\nsystem\ntQ.", "global os.system"),
        (b"\x80\x02U\x06systemQ.", "persistent object that is no storage"),
        (b"\x80\x02(U\x06moduleNNNNtQ.", "persistent object that is no storage"),
        (b"\x80\x02(U\x07storageU\x01xU\x010U\x03cpuK\x01tQ.", "type, key or size"),
        (b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQ.", "type, key or size"),
        (b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R.", "calls a StorageType"),
        (b"\x80\x02N)R.", "calls a NoneType"),
        (b"\x80\x02ctorch\nSize\nNR.", "which is no function"),
        (b"\x80\x02ctorch\nSize\n(K\x01J\xff\xff\xff\xffttR.", "does not hold sizes|damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n(NK\x00))tR.", "without a storage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\nK\x00\x85R.", "damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n(N\x88NtR.", "parameter without a tensor"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x85R.", "OrderedDict made from a tuple"),
        (b"\x80\x02}(K\x01K\x02K\x01K\x03u.", "key 1 twice"),
        (b"\x80\x02})K\x02s.", "key of type tuple"),
        (b"\x80\x02]K\x01K\x02s.", "for a dict are put into a list"),
        (b"\x80\x02}K\x01a.", "for a list are put into a dict"),
        (b"\x80\x02}(K\x01u.", "damaged"),
        (b"\x80\x02K\x01}b.", "sets attributes of a int"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02N", "damaged"),
        (b"", "damaged"),
        (b"\xff", "damaged"),
        (b"\x80\x02I1e5\n.", "damaged"),
        (b"\x80\x04\x93.", "damaged"),
        (b"\x80\x04NN\x93.", "name is no text"),
        (b"\x80\x03B" + struct.pack("<I", 2**31) + b"x.", "carries 2147483648 bytes"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "carries"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"x.", "carries"),
        (b"c" + b"x" * 200_000, "damaged"),
        (b"I" + b"9" * 60_000 + b"\n.", "damaged"),
    ],
)
def test_refused(data, message):
    with pytest.raises(CheckpointError, match=message):
        read(data)


def test_a_huge_memo_index_costs_no_memory():
    # The C unpickler would make room for two thousand million entries.
    assert read(b"\x80\x02K\x07r" + struct.pack("<I", 2**31 - 1) + b".") == 7


def test_long_lists_are_not_copied_again_and_again():
    # A list of 1000 pairs, of which each later call would make another dict.
    pairs = b"](" + b"".join(b"](J" + struct.pack("<i", number) + b"Ne" for number in range(1000)) + b"eq\x01"
    calls = b"h\x01\x85q\x020" + b"h\x00h\x02R0" * 1000
    data = b"\x80\x02ccollections\nOrderedDict\nq\x00" + pairs + b"0" + calls + b"h\x00h\x02R."
    assert read(data) == {}


@given(data=st.binary(max_size=100))
def test_noise_raises_or_reads(data):
    for start in (b"", b"\x80\x02", b"\x80\x04"):
        with contextlib.suppress(CheckpointError):
            read(start + data)


def shared_tuples(depth: int) -> bytes:
    """Instructions for a tuple of 2 ** depth leaves, in 8 bytes a level."""
    return b")q\x000" + b"h\x00h\x00\x86q\x000" * depth + b"h\x00"


# Costs that one small file could cause; the first five distinguish this reader from pickle.Unpickler.
BOMBS = {
    "key of a shared tuple": (b"\x80\x02}" + shared_tuples(60) + b"Ns.", "key of type tuple"),
    "one key twice": (b"\x80\x02}(K\x01NK\x01Nu.", "key 1 twice"),
    "a class made by NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ.*refused"),
    "attributes of a list": (b"\x80\x02]}b.", "sets attributes of a list"),
    "no-ops without end": (b"\x80\x02" + b"N0" * 2_000_000 + b"N.", "instructions, which no state dict needs"),
    "lists and nothing else": (b"\x80\x02" + b"]" * 1_000_000 + b".", "more lists and dicts"),
    "dicts by calls": (b"\x80\x02ccollections\nOrderedDict\nq\x00" + b"h\x00)R0" * 500_000 + b"N.", "lists and dicts"),
    "a shared tuple where a storage is named": (b"\x80\x02" + shared_tuples(60) + b"Q.", "no storage"),
    "a shared tuple where a size is expected": (
        b"\x80\x02ctorch\nSize\n" + shared_tuples(60) + b"\x85R.",
        "does not hold sizes",
    ),
    "keys that collide": (
        pickle.dumps({(2**61 - 1) * number: None for number in range(1, 60_000)}, 2),
        "larger integer than any state dict has",
    ),
    "an integer of 500,000 bits": (pickle.dumps({1 << 500_000: 0}, 2), "larger integer"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_the_work_is_bounded_by_the_size(name):
    data, message = BOMBS[name]
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message) as raised:
        read(data)
    assert time.process_time() - start < 5
    assert len(str(raised.value)) < 500


def test_short_lines_are_read_in_linear_time():
    data = b"(" + b"I1\n" * 200_000 + b"l."
    start = time.process_time()
    assert len(read(data)) == 200_000
    assert time.process_time() - start < 5
