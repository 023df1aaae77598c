"""Damage to bytes, to trees of values and to JSON."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

Random = random.Random


def damage_bytes(rng: Random, data: bytes) -> bytes:
    """A few changes of bytes anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        data = _damage_once(rng, bytearray(data))
    return data


def _damage_once(rng: Random, data: bytearray) -> bytes:
    if not data:
        return bytes(rng.randbytes(4))
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8))
    change = rng.randrange(9)
    if change == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif change == 1:
        data[at] = rng.randrange(256)
    elif change == 2:
        del data[at : at + rng.choice((1, 2, 8, 64, len(data)))]
    elif change == 3:
        data[at:at] = data[at : at + rng.choice((1, 8, 64, 512))] * rng.choice((1, 1, 2, 20))
    elif change == 4:
        other = rng.randrange(len(data))
        data[at : at + size] = data[other : other + size]
    elif change == 5:
        value = rng.choice((0, 1, 2, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
        data[at : at + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
    elif change == 6:  # a position in the file, where a format has one
        at = at // 8 * 8
        data[at : at + 8] = rng.randrange(len(data)).to_bytes(8, "little")
    elif change == 7:
        data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
    else:
        return bytes(data[:at])
    return bytes(data)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**60),
    *("", "x", "../x", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "None", "1", "1e-05", "🙂", "float16", "\n"),
    *([], [[]], [None], [1, 2], ["a"], {}, {"a": 1}, {"content": "x"}, {"content": 1}, {"type": "BPE"}, [0.1] * 40),
    *(["x"] * 3, [[1, [2, [3, {}]]]], {"": {"": {}}}, {"0": "a", "1": "b"}, {"-1": "a"}, {"a": [{}]}),
)


def damage_tree(rng: Random, value: Any) -> Any:
    """A copy of a JSON value with some nodes changed, moved or left out."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD_VALUES))
        parent, key = rng.choice(places)
        change = rng.randrange(10)
        if change <= 5:
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        elif change == 6:
            del parent[key]
        elif change == 7:
            other, other_key = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[other_key]))
        elif change == 8 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "../x", key + "x", key.upper(), "\ud800", "9" * 40))] = parent.pop(key)
        elif isinstance(parent, list):
            parent += parent[: rng.choice((1, 8, 100))]
        elif isinstance(parent[key], int):
            parent[key] = parent[key] * rng.choice((-1, 0, 2, 10**6)) + rng.choice((0, 1, -1))
    return value


def _places(value: Any) -> Any:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:200]:
        yield value, key
        yield from _places(value[key])


def damage_json(rng: Random, value: Any) -> bytes:
    """The bytes of a damaged JSON file."""
    if rng.random() < 0.6:
        return json.dumps(damage_tree(rng, value)).encode()
    text = json.dumps(value)
    change = rng.randrange(10)
    if change == 0:
        return b"\xef\xbb\xbf" + text.encode()
    if change == 1:
        return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-16-be")))
    if change == 2:
        return (text + rng.choice((" x", "{}", "\0", text))).encode()
    if change == 3:
        depth = rng.choice((10, 90, 101, 1000, 100_000))
        return _put(rng, text, rng.choice(("[", '{"a":')) * depth, "").encode()
    if change == 4:
        return _put(rng, text, "9" * rng.choice((50, 65, 5000)), "").encode()
    if change == 5:
        return _put(rng, text, rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e400")), "").encode()
    if change == 6:
        return text.replace('"', '"\xe9', 1).encode("latin-1", "replace")
    if change == 7 and text.startswith("{"):
        return (text[:-1] + "," + text[1:]).encode()
    return damage_bytes(rng, text.encode())


def damage_safetensors(rng: Random, data: bytes) -> bytes:
    """A damaged header before whole tensors, or changes of bytes anywhere."""
    if rng.random() >= 0.7:
        return damage_bytes(rng, data)
    size = int.from_bytes(data[:8], "little")
    header = damage_json(rng, json.loads(data[8 : 8 + size]))
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _put(rng: Random, text: str, what: str, end: str) -> str:
    """Put something in the place of a value."""
    places = [at + 2 for at in range(len(text) - 2) if text[at : at + 2] == ": "] or [0]
    at = rng.choice(places)
    stop = next((stop for stop in range(at, len(text)) if text[stop] in ",}]"), len(text))
    return text[:at] + what + end + text[stop:]
