"""Time forms of the Triton kernels for decoding by themselves, on a GPU, through PyTorch.

    python -m tools.bench.kernels product --shape llama-3.2-1b --bits 4 --group 128 --rows 1,32
    python -m tools.bench.kernels attention --batch 1,32,128 --keys 2304,768,768

Needs PyTorch and Triton, and no TensorFlow. Every form is checked against plain float32 and timed as XLA runs it, in a
CUDA graph; launches that follow each other read different weights, so that none are in the cache. Prints the fastest
forms of each product or attention: microseconds, and GB/s of weights, or of keys and values. One process compiles one
form after the other; --compile-only fills Triton's cache beforehand, with several processes for different --rows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

try:
    import torch
    from triton.runtime.errors import OutOfResources
except ImportError as error:
    sys.exit(f"{error}; PyTorch for CUDA and Triton are needed: pip install torch triton")

from tools.bench.arguments import numbers

sys.path.insert(0, str(Path(__file__).parents[2] / "tfmodels" / "kernels"))
import triton_attention
import triton_packed
import triton_products

# Inputs, outputs of each matrix, whether the first gates the second.
PRODUCTS = {
    "llama-3.2-1b": {
        "query, key, value": (2048, (2048, 512, 512), False),
        "output": (2048, (2048,), False),
        "gate and up": (2048, (8192, 8192), True),
        "down": (8192, (2048,), False),
        "head": (2048, (128256,), False),
    },
    "pythia-410m": {
        "query, key, value": (1024, (3072,), False),
        "output": (1024, (1024,), False),
        "up": (1024, (4096,), False),
        "down": (4096, (1024,), False),
    },
    "llama-2-7b": {
        "query, key, value": (4096, (4096, 4096, 4096), False),
        "output": (4096, (4096,), False),
        "gate and up": (4096, (11008, 11008), True),
        "down": (11008, (4096,), False),
    },
}
# Heads of queries, of keys and values, and their numbers.
HEADS = {"llama-3.2-1b": (32, 8, 64), "llama-2-7b": (32, 32, 128), "pythia-410m": (16, 16, 64)}
SPREAD = 400 * 2**20  # bytes of weights that launches go through
LAUNCHES = 12

Form = dict[str, Any]


class Case(NamedTuple):
    """A product or an attention to be timed.

    Fields:
        forms: those to try.
        prepare: takes a form; returns call(run, copy), where run is `launched` or `compiled`, and the tensor it fills.
        size: bytes of the weights, or of the keys and values.
        copies: how many copies of them there are.
        want: the result, float32.
    """

    forms: list[Form]
    prepare: Callable[[Form], tuple[Callable[..., Any], torch.Tensor]]
    size: int
    copies: int
    want: torch.Tensor


def microseconds(launch: Callable[[int], None], copies: int) -> float:
    """The time of a launch in a graph of some, which take copies of the weights in turn."""
    launch(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(LAUNCHES):
            launch(index % copies)
    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end) / LAUNCHES)
    return statistics.median(times[1:])


def stored_as(q: torch.Tensor, bits: int) -> torch.Tensor:
    if bits == 8:
        return q.to(torch.int8)
    biased = (q + 8).to(torch.uint8)
    return biased[0::2] | (biased[1::2] << 4)


def product_forms(rows: int, bits: int, width: int, gated: bool, out: int) -> Iterator[Form]:
    """Sizes of blocks, warps, stages and parts."""
    block_rows = rows_of_a_block(rows, bits)
    for block_in, block_out, warps, stages, parts in itertools.product(
        (64, 128, 256), (64, 128, 256), (4, 8), (2, 3, 4), (1, 2, 4, 8, 16)
    ):
        shared = stages * block_in * (2 * block_rows + (1 + gated) * block_out * bits // 8)
        programs = -(-out // block_out) * parts
        fits = shared <= 200 * 2**10 and block_rows * block_out * (1 + gated) <= 128 * 32 * warps
        if not fits or width < parts * block_in or stages > width // (parts * block_in) + 1:
            continue
        if parts == 1 or (not gated and 128 <= programs <= 1024):
            yield {"block_in": block_in, "block_out": block_out, "warps": warps, "stages": stages, "parts": parts}


def rows_of_a_block(rows: int, bits: int) -> int:
    most = 128 if bits == 16 else 64
    return min(most, max(16 if bits == 16 else 8, 1 << (rows - 1).bit_length()))


def product(
    dtype: torch.dtype, rows: int, bits: int, group: int, width: int, outs: tuple[int, ...], gated: bool
) -> Case:
    """A product with random weights."""
    size = width * sum(outs) * bits // 8
    copies = max(1, min(LAUNCHES, -(-SPREAD // size)))
    torch.manual_seed(0)
    x = torch.randn(rows, width, device="cuda").to(dtype)
    weights, scales, wants = [], [], []
    groups = width // group if group else 1
    for out in outs:
        if bits == 16:
            stored = (torch.randn(width, out, device="cuda") / width**0.5).to(dtype)
            scale, matrix = x, stored
        else:
            half = 1 << (bits - 1)
            q = torch.randint(-half, half, (width, out), device="cuda")
            scale = (torch.rand(groups, out, device="cuda") + 0.5) / (half * width**0.5)
            stored, matrix = stored_as(q, bits), q.float() * scale.repeat_interleave(width // groups, 0)
        weights.append([stored] + [stored.clone() for _ in range(copies - 1)])
        scales.append(scale)
        wants.append(x.float() @ matrix.float())
    want = torch.nn.functional.silu(wants[0]) * wants[1] if gated else torch.cat(wants, 1)
    missing = 3 - len(outs)
    block_rows = rows_of_a_block(rows, bits)

    def prepare(form: Form) -> tuple[Callable[..., Any], torch.Tensor]:
        parts, block_in, block_out = form["parts"], form["block_in"], form["block_out"]
        made = torch.full((parts, *want.shape), float("nan"), device="cuda", dtype=dtype if gated else torch.float32)
        columns = -(-outs[0] // block_out) if gated else sum(-(-out // block_out) for out in outs)
        sizes = dict(zip(("OUT_1", "OUT_2", "OUT_3"), (*outs, *[0] * missing), strict=True))
        sizes |= {"ROWS": rows, "IN": width, "SHARE": -(-width // (parts * block_in)) * block_in, "HAS_BIAS": False}
        sizes |= {"BLOCK_ROWS": block_rows, "BLOCK_IN": block_in, "BLOCK_OUT": block_out}
        if bits == 16:
            kernel = triton_products.product
            sizes |= {"GATED": gated, "ACTIVATION": "silu" if gated else ""}
        else:
            kernel = triton_packed.packed_product
            sizes |= {"BITS": bits, "GROUP": group, "OFFSETS": "", "SCALED": True, "ASM": True}
        grid = (columns, parts, -(-rows // block_rows))

        def call(run: Callable[..., Any], index: int) -> None:
            stored = [copy[index] for copy in weights]
            tensors = [x, *stored, *stored[:1] * missing]
            if bits != 16:
                tensors += [*scales, *scales[:1] * missing] * 2
            run(kernel, (*tensors, x, x, x, made), grid, num_warps=form["warps"], num_stages=form["stages"], **sizes)

        return call, made

    forms = list(product_forms(rows, bits, width, gated, outs[0] if gated else sum(outs)))
    return Case(forms, prepare, size, copies, want)


def attention_forms(rows: int, keys: int) -> Iterator[Form]:
    for chunk, warps, stages in itertools.product((32, 64, 128), (1, 2, 4), (1, 2, 3)):
        for chunks in (1, 2, 3, 4, 6, 8, 12, 18, 24, 36):
            share = chunk * chunks
            if (chunks == 1 or share < keys + chunk) and rows * -(-keys // share) >= 64:
                yield {"chunk": chunk, "share": share, "warps": warps, "stages": stages}


def attention(dtype: torch.dtype, shape: str, batch: int, keys: int, parts: int) -> Case:
    """Attention of a token over a full cache."""
    heads, kv_heads, dim = HEADS[shape]
    group, width = heads // kv_heads, (heads + 2 * kv_heads) * dim
    size = 2 * batch * kv_heads * keys * dim * 2
    copies = max(1, min(LAUNCHES, -(-SPREAD // size)))
    torch.manual_seed(0)
    new = torch.randn(parts, batch, width, device="cuda")
    angles = torch.rand(batch, dim // 2, device="cuda") * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.full((batch,), keys - 1, dtype=torch.int32, device="cuda")
    span = [torch.full((batch,), end, dtype=torch.int32, device="cuda") for end in (0, keys)]
    allowed = torch.ones(batch, keys, dtype=torch.int8, device="cuda")
    caches = [torch.randn(2, batch * kv_heads, keys, dim, device="cuda").to(dtype) for _ in range(copies)]
    whole = new.sum(0).view(batch, -1, dim)
    first, second = whole[..., : dim // 2], whole[..., dim // 2 :]
    c, s = cos[:, None], sin[:, None]
    turned = torch.cat([first * c - second * s, second * c + first * s], -1)
    key, value = (cache.clone().view(batch, kv_heads, keys, dim) for cache in caches[0])
    key[:, :, -1] = turned[:, heads : heads + kv_heads].to(dtype)
    value[:, :, -1] = whole[:, heads + kv_heads :].to(dtype)
    asked = turned[:, :heads].view(batch, kv_heads, group, dim).to(dtype).float()
    scores = torch.einsum("bhgd,bhkd->bhgk", asked, key.float()) * dim**-0.5
    want = torch.einsum("bhgk,bhkd->bhgd", scores.softmax(-1), value.float()).reshape(batch, -1)
    places = {"QUERY_FIRST": 0, "KEY_FIRST": heads * dim, "VALUE_FIRST": (heads + kv_heads) * dim}
    for name in ("QUERY", "KEY", "VALUE"):
        places |= {f"{name}_ROW": width, f"{name}_HEAD": dim}

    def prepare(form: Form) -> tuple[Callable[..., Any], torch.Tensor]:
        rows, splits = batch * kv_heads, -(-keys // form["share"])
        made = torch.full((1, batch, heads * dim), float("nan"), device="cuda", dtype=dtype)
        partial = torch.empty(rows, splits, group, dim, device="cuda") if splits > 1 else made
        softmax = torch.empty(rows, splits, group, 2, device="cuda")
        sizes = {"GROUP": group, "KV_HEADS": kv_heads, "KEYS": keys, "HEAD_DIM": dim, **places, "PARTS": parts}
        sizes |= {"PART": batch * width, "PAIRS": dim // 2, "ANGLES_STRIDE": dim // 2, "SLOTS_STRIDE": 1}
        sizes |= {"ALLOWED_STRIDE": keys, "HAS_BIAS": False, "BIAS_STRIDE": 0, "SCALE": dim**-0.5, "SPLITS": splits}
        sizes |= {"SHARE": form["share"], "CHUNK": form["chunk"], "BLOCK_HEADS": 1 if group == 1 else 8}
        sizes |= {"BLOCK_DIM": dim}
        totals = {"GROUP": group, "HEAD_DIM": dim, "SPLITS": splits, "BLOCK_DIM": dim}
        totals["BLOCK_SPLITS"] = 1 << (splits - 1).bit_length()

        def call(run: Callable[..., Any], index: int) -> None:
            cache = caches[index]
            tensors = (new, new, new, cos, sin, slots, *span, allowed, cos, cache[0], cache[1], cache[0], cache[1])
            options = {"num_warps": form["warps"], "num_stages": form["stages"], **sizes}
            run(triton_attention.attention, (*tensors, partial, softmax), (rows, splits), **options)
            if splits > 1:
                run(triton_attention.attention_total, (partial, softmax, made), (rows * group,), **totals)

        return call, made

    return Case(list(attention_forms(batch * kv_heads, keys)), prepare, size, copies, want)


def launched(kernel: Any, tensors: tuple[Any, ...], grid: tuple[int, ...], **sizes: Any) -> None:
    kernel[grid](*tensors, **sizes)


def compiled(kernel: Any, tensors: tuple[Any, ...], grid: tuple[int, ...], **sizes: Any) -> None:
    kernel.warmup(*tensors, grid=grid, **sizes)


def report(name: str, case: Case, options: argparse.Namespace) -> None:
    forms = case.forms
    if options.sample and len(forms) > options.sample:
        forms = forms[:: -(-len(forms) // options.sample)]
    found = []
    for form in forms:
        call, made = case.prepare(form)
        try:
            call(compiled, 0)
            if not options.compile_only:
                call(launched, 0)
                torch.cuda.synchronize()
                wrong = float((made.float().sum(0) - case.want).norm() / case.want.norm())
                found.append((microseconds(functools.partial(call, launched), case.copies), wrong, form))
        except OutOfResources as error:
            sys.stderr.write(f"{form}: {error}\n")
    found.sort(key=lambda one: one[0])
    print(f"{name}: {len(found)} forms", flush=True)
    for us, wrong, form in found[: options.best]:
        fields = " ".join(f"{key}={value}" for key, value in form.items())
        print(f"    {us:8.2f} us {case.size / us / 1e3:6.0f} GB/s  error {wrong:.1e}  {fields}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("what", choices=("product", "attention"))
    add("--shape", choices=tuple(PRODUCTS), default="llama-3.2-1b")
    add("--bits", type=int, choices=(4, 8, 16), default=16)
    add("--group", type=int, default=0, metavar="N", help="terms that share a scale; 0 for all (%(default)s)")
    add("--rows", type=numbers, default=[1], metavar="N,...", help="of a product (1)")
    add("--batch", type=numbers, default=[1], metavar="N,...", help="of attention (1)")
    add("--keys", type=numbers, default=[2304], metavar="N,...", help="for each batch (2304)")
    add("--parts", type=int, default=1, metavar="N", help="of the products that attention adds up (%(default)s)")
    add("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    add("--best", type=int, default=4, metavar="N", help="forms to print (%(default)s)")
    add("--sample", type=int, metavar="N", help="try about so many forms of each")
    add("--compile-only", action="store_true", help="fill Triton's cache, for a run that follows")
    options = parser.parse_args()
    if options.group and options.bits == 16:
        parser.error(f"--group {options.group} is for packed weights: --bits 4 or 8")
    widths = [width for width, *_ in PRODUCTS[options.shape].values()]
    if options.group and any(width % options.group for width in widths):
        parser.error(f"--group {options.group} does not divide the inputs of {options.shape}: {sorted(set(widths))}")
    if options.what == "attention" and len(options.batch) != len(options.keys):
        parser.error(f"--batch has {len(options.batch)} numbers and --keys {len(options.keys)}: one for each batch")
    dtype = getattr(torch, options.dtype)
    if options.what == "attention":
        for batch, keys in zip(options.batch, options.keys, strict=True):
            case = attention(dtype, options.shape, batch, keys, options.parts)
            report(f"{options.shape}, attention {batch} x {keys}", case, options)
        return
    for rows, (name, (width, outs, gated)) in itertools.product(options.rows, PRODUCTS[options.shape].items()):
        gated = gated and options.bits == 16  # packed matrices stay apart
        case = product(dtype, rows, options.bits, options.group, width, outs, gated)
        report(f"{options.shape}, {options.bits} bits, {rows} rows, {name}", case, options)


if __name__ == "__main__":
    main()
