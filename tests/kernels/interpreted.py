"""Runs the package's Triton kernels in Triton's interpreter, on a CPU, against plain float32.

A script for a process of its own. It writes a line of JSON per case: its name and the relative error.
"""

import json
import math
import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tfmodels" / "kernels"))
import triton_attention
import triton_norms
import triton_packed
import triton_products
from triton.runtime import interpreter

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def let_loops_end_at_tensors():
    """Let Triton 3.6's interpreter take the bounds of loops from arrays of one number, which NumPy 2.4 refuses."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched


def error(got, want):
    got, want = got.float(), want.float()
    return float((got - want).norm() / want.norm())


def packed(width, out, bits, group, offsets):
    """Stored arrays of a random matrix, and the matrix."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    size = group or width
    rows = -(-width // size) * size
    q = torch.randint(low, high + 1, (rows, out))
    groups = rows // size
    scales = torch.rand(groups, out) * 1e-3 + 1e-4
    each = torch.arange(rows) // size
    matrix = q.float()
    extra = scales
    if offsets == "zeros":
        extra = torch.randint(low, high + 1, (groups, out)).to(torch.int8)
        matrix = matrix - extra.float()[each]
    if offsets == "minimums":
        matrix = matrix + (1 << (bits - 1))
    matrix = matrix * scales[each]
    if offsets == "minimums":
        extra = torch.randn(groups, out) * 1e-3
        matrix = matrix + extra[each]
    stored = q.to(torch.int8)
    if bits == 4:
        biased = (q + 8).to(torch.uint8)
        stored = biased[0::2] | (biased[1::2] << 4)
    return stored, scales, extra, matrix[:width]


def product(name, rows, width, outs, *, bits=16, group=0, offsets="", bias=False, gated=False, activation="", parts=1,
            blocks=(64, 32)):  # fmt: skip
    dtype = DTYPES[name]
    x = torch.randn(rows, width).to(dtype) + 0.5
    stored, scales, extras, biases, wants = [], [], [], [], []
    for out in outs:
        if bits == 16:
            matrix = (torch.randn(width, out) / math.sqrt(width)).to(dtype)
            stored.append(matrix), scales.append(x), extras.append(x)
            matrix = matrix.float()
        else:
            values, scale, extra, matrix = packed(width, out, bits, group, offsets)
            stored.append(values), scales.append(scale), extras.append(extra)
        biases.append(torch.randn(out).to(dtype))
        wants.append(x.float() @ matrix + (biases[-1].float() if bias else 0))
    acts = {"": lambda y: y, "silu": torch.nn.functional.silu, "gelu": torch.nn.functional.gelu,
            "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"), "relu": torch.relu}  # fmt: skip
    act = acts[activation]
    wants = [act(wants[0]) * wants[1]] if gated else [act(want) for want in wants]
    want = torch.cat(wants, 1)
    made = torch.full((parts, *want.shape), float("nan"), dtype=torch.float32 if parts > 1 or bits < 16 else dtype)
    fill = 3 - len(outs)
    block_in, block_out = blocks
    block_rows = max(16 if bits == 16 else 8, 1 << (rows - 1).bit_length())
    columns = -(-outs[0] // block_out) if gated else sum(-(-out // block_out) for out in outs)
    share = -(-width // (parts * block_in)) * block_in
    tensors = [x, *stored, *stored[:1] * fill]
    sizes = [rows, width, *outs, *[0] * fill, share]
    kernel = triton_products.product
    if bits < 16:
        kernel = triton_packed.packed_product
        tensors += [*scales, *scales[:1] * fill, *extras, *extras[:1] * fill]
        sizes += [bits, group, offsets, True]
    sizes += [bias, *([activation, gated] if bits == 16 else []), block_rows, block_in, block_out]
    sizes += [] if bits == 16 else [False]
    kernel[(columns, parts, -(-rows // block_rows))](*tensors, *biases, *biases[:1] * fill, made, *sizes)
    return error(made.float().sum(0), want)


def table_product(name, rows, width, out):
    dtype = DTYPES[name]
    x, table = torch.randn(rows, width).to(dtype), torch.randn(out, width).to(dtype)
    made = torch.full((rows, out), float("nan"))
    block_rows = 1 if rows == 1 else 16
    triton_products.table_product[(-(-out // 16),)](x, table, made, rows, width, out, block_rows, 64, 16)
    return error(made, x.float() @ table.float().T)


def attention(name, batch, heads, kv_heads, head_dim, keys, *, layout="apart", pairs=0, per_row=False, bias=False,
              chunk=32, share=1, parts=1, hidden=0, scale=0.25):  # fmt: skip
    dtype = DTYPES[name]
    if layout == "apart":
        tensors = [torch.randn(batch, n * head_dim).to(dtype) for n in (heads, kv_heads, kv_heads)]
        at = [(n * head_dim, head_dim, 0) for n in (heads, kv_heads, kv_heads)]
    elif layout == "by head":
        tensors = [torch.randn(batch, heads * 3 * head_dim).to(dtype)] * 3
        at = [(3 * heads * head_dim, 3 * head_dim, n * head_dim) for n in range(3)]
    else:
        tensors = [torch.randn(batch, heads * 3 * head_dim).to(dtype)] * 3
        at = [(3 * heads * head_dim, head_dim, n * heads * head_dim) for n in range(3)]

    def heads_of(tensor, place, count):
        _, stride, first = place
        rows = [tensor[:, first + h * stride : first + h * stride + head_dim] for h in range(count)]
        return torch.stack(rows, 1).float()

    def in_parts(tensor):
        first = torch.randn(parts - 1, *tensor.shape)
        return torch.cat([first, (tensor.float() - first.sum(0))[None]])

    query, key, value = (heads_of(*three) for three in zip(tensors, at, (heads, kv_heads, kv_heads), strict=True))
    n = batch if per_row else 1
    if parts > 1:  # as one tensor, side by side
        tensors = [in_parts(torch.cat(tensors, 1))] * 3
        width = (heads + 2 * kv_heads) * head_dim
        at = [(width, head_dim, n * head_dim) for n in (0, heads, heads + kv_heads)]
    angles = torch.rand(n, max(pairs, 1)) * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.randint(0, keys, (n,), dtype=torch.int32)

    def turned(x):
        c, s = cos[:, None], sin[:, None]
        first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
        return torch.cat([first * c - second * s, second * c + first * s, rest], -1) if pairs else x

    allowed = torch.rand(n, keys) < 0.7
    allowed[torch.arange(n), slots.long()] = True
    allowed[:, :hidden] = allowed[:, keys - hidden :] = False
    places = torch.arange(keys)
    span = torch.where(allowed, places, keys).amin(1), torch.where(allowed, places + 1, 0).amax(1)
    added = torch.randn(1, heads, keys)
    key_cache, value_cache = (torch.randn(batch * kv_heads, keys, head_dim).to(dtype) for _ in range(2))
    wants = [cache.clone().view(batch, kv_heads, keys, head_dim) for cache in (key_cache, value_cache)]
    for b in range(batch):
        slot = slots[b if per_row else 0]
        wants[0][b, :, slot], wants[1][b, :, slot] = turned(key)[b].to(dtype), value[b].to(dtype)
    group = heads // kv_heads
    wide = [cache.float().repeat_interleave(group, 1) for cache in wants]
    scores = torch.einsum("bhd,bhkd->bhk", turned(query), wide[0]) * scale + (added if bias else 0)
    scores = scores.masked_fill(~allowed[:, None], -math.inf)
    want = torch.einsum("bhk,bhkd->bhd", scores.softmax(-1), wide[1])
    splits = -(-keys // (share * chunk))
    rows, block_dim = batch * kv_heads, max(16, 1 << (head_dim - 1).bit_length())
    block_heads = 1 if group == 1 and head_dim <= 128 else 8 if group <= 8 else 16
    got = torch.full((batch, heads, head_dim), float("nan"), dtype=dtype)
    partial = got if splits == 1 else torch.full((rows, splits, group, head_dim), float("nan"))
    softmax = torch.full((rows, splits, group, 2), float("nan"))
    triton_attention.attention[(rows, splits)](
        *tensors, cos, sin, slots, *(end.int() for end in span), allowed.to(torch.int8), added,
        *[key_cache, value_cache] * 2, partial, softmax,
        group, kv_heads, keys, head_dim, *at[0], *at[1], *at[2], parts,
        tensors[0][0].numel(), pairs, pairs if per_row else 0, int(per_row), keys if per_row else 0, bias, 0, scale,
        splits, share * chunk, chunk, block_heads, block_dim,
    )  # fmt: skip
    if splits > 1:
        block = 1 << (splits - 1).bit_length()
        total = triton_attention.attention_total
        total[(rows * group,)](partial, softmax, got, group, head_dim, splits, block, block_dim)
    caches = [error(cache.view_as(w), w) for cache, w in zip((key_cache, value_cache), wants, strict=True)]
    return max(error(got, want), *caches)


def added_norms(name, rows, width, parts, *, norms=1, centered=False, bias=False, offset=0.0):
    """The error of the sum, or of the norm that is furthest off."""
    dtype = DTYPES[name]
    hidden = torch.randn(rows, width).to(dtype) + 0.5
    added = [torch.randn(n, rows, width) for n in parts]
    weights, biases = ([torch.randn(width).to(dtype) for _ in range(2)] for _ in range(2))
    want = hidden.float() + sum(one.sum(0) for one in added)
    x = want - want.mean(1, keepdim=True) if centered else want
    x = x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-3)
    wants = [x * (w.float() + offset) + (b.float() if bias else 0) for w, b in zip(weights, biases, strict=True)]
    made = [torch.full((rows, width), float("nan"), dtype=dtype) for _ in range(3)]
    counts = [*parts, 0][:2]
    block = 1 << (width - 1).bit_length()
    triton_norms.added_norms[(rows,)](
        hidden, added[0], added[-1], *weights, *biases, *made, rows, width, *counts, centered, 1e-3, offset, bias,
        norms, block,
    )  # fmt: skip
    return max(error(*pair) for pair in zip(made[: 1 + norms], [want, *wants], strict=False))


def cases():
    # In bfloat16 the interpreter's products are wrong: the tests on a GPU try that.
    name = "float16"
    yield product, (name, 1, 200, (40, 24, 24)), {"bias": True}
    yield product, (name, 3, 200, (40, 24, 24)), {"bias": True, "parts": 2}
    yield product, (name, 20, 96, (40, 40)), {"gated": True, "activation": "silu", "bias": True}
    for activation in ("gelu", "gelu_tanh", "relu"):
        yield product, (name, 3, 96, (40,)), {"activation": activation, "bias": True}
    for bits in (8, 4):
        yield product, (name, 3, 200, (40, 24)), {"bits": bits}
        for offsets in ("", "zeros", "minimums"):
            options = {"bits": bits, "group": 32, "offsets": offsets, "bias": True}
            yield product, (name, 3, 180, (40, 24)), {**options, "parts": 2}
            yield product, (name, 20, 192, (40, 40, 24)), {**options, "blocks": (64, 64)}
    yield product, (name, 3, 256, (40,)), {"bits": 4, "group": 128}
    yield table_product, (name, 1, 200, 40), {}
    yield table_product, (name, 3, 200, 40), {}
    yield added_norms, (name, 3, 200, (4,)), {}
    yield added_norms, (name, 3, 200, (1,)), {"offset": 1.0}
    yield added_norms, (name, 2, 128, (2, 3)), {"norms": 2, "centered": True, "bias": True}
    yield attention, (name, 2, 4, 4, 24, 70), {"pairs": 8, "per_row": True}
    yield attention, (name, 2, 4, 4, 24, 70), {"layout": "by head", "pairs": 4}
    yield attention, (name, 2, 4, 4, 24, 70), {"layout": "in turn", "per_row": True}
    yield attention, (name, 1, 2, 2, 160, 40), {"pairs": 80, "bias": True, "scale": 0.08}
    yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "bias": True, "per_row": True}
    for scale in (-0.25, 1e-30):  # of zero the kernel gets the latter
        yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "bias": True, "scale": scale}
    yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "parts": 3}
    yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "per_row": True, "hidden": 40}
    yield attention, (name, 1, 20, 2, 16, 100), {"share": 4, "hidden": 33}
    yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "share": 2, "bias": True, "per_row": True}
    yield attention, (name, 2, 8, 2, 16, 100), {"pairs": 8, "share": 4, "per_row": True}


def main():
    let_loops_end_at_tensors()
    for measure, arguments, options in cases():
        torch.manual_seed(0)
        found = measure(*arguments, **options)
        name = f"{measure.__name__} {arguments} {options}"
        sys.stdout.write(json.dumps({"case": name, "dtype": arguments[0], "error": found}) + "\n")


if __name__ == "__main__":
    main()
