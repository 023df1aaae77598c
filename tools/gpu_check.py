#!/usr/bin/env python
"""Check on a GPU that the fused attention computes what plain float32 attention does, and so do whole models.

    python tools/gpu_check.py                        # everything: kernels, models, decoding, reference cases
    python tools/gpu_check.py kernels --lengths 16,100,2048
    python tools/gpu_check.py models --families mpt,mpnet --threads 8
    python tools/gpu_check.py reference --device cpu
    KERAS_BACKEND=jax python tools/gpu_check.py kernels     # Keras's own fused attention on JAX

kernels: outputs and gradients of fused attention, in every mode, against plain float32 attention; errors are relative
in the Euclidean norm, of gradients the largest among query, key, value and bias. At most 2e-3 in float16, 1.5e-2 in
bfloat16.
models: logits and gradients of all weights of small models, compiled by XLA with attention as "auto" picks it, against
the float32 model with plain attention; at most three times what plain attention in the same dtype loses.
decoding: the kernels for single tokens against plain float32, bounded as above; and the logits of every token that
small models decode from a left-padded batch, compiled, against the float32 model that is given the same tokens at
once, and the same of models with int8 weights; at most three times what a plain pass in the same dtype loses.
reference: the recorded cases below tests/reference in float32, without TF32; the largest difference, as a fraction of
what the case allows.

A line per check as it ends, and one table of the worst at the end. Fails if an error is above its bound.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import numpy as np
from keras import ops

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tfmodels.kernels import cudnn_attention  # noqa: E402
from tfmodels.kernels.masks import make_mask  # noqa: E402
from tfmodels.layers.alibi import alibi_bias, alibi_slopes  # noqa: E402
from tfmodels.layers.attention import attend  # noqa: E402

ON_JAX = keras.backend.backend() == "jax"
WHAT = ("kernels", "models", "decoding", "reference")
BOUNDS = {"float16": 2e-3, "bfloat16": 1.5e-2}
LENGTHS = (16, 100, 127, 512, 1000, 2048, 4096, 8192)
LARGE = 4096  # from this length on one check at a time: plain float32 scores take gigabytes


class Result(NamedTuple):
    """What a check found.

    Fields:
        check, case, dtype: what was compared; the worst of all with the same are what the table shows.
        detail: length, or padding.
        output, gradients: errors; None where there is none.
        allowed: for each, as many as there are errors.
        note: why it failed or was not served, or how attention was computed.
        served: whether there was anything to compare: on JAX fused attention serves less.
    """

    check: str
    case: str
    dtype: str
    detail: str
    output: float | None
    gradients: float | None
    allowed: tuple[float, ...]
    note: str = ""
    served: bool = True

    @property
    def good(self) -> bool:
        if not self.served:
            return True
        errors = [error for error in (self.output, self.gradients) if error is not None]
        return bool(errors) and all(error <= bound for error, bound in zip(errors, self.allowed, strict=True))

    def __str__(self) -> str:
        cells = [self.check, self.case, self.dtype, self.detail, number(self.output), number(self.gradients)]
        verdict = "not served" if not self.served else "ok" if self.good else "FAILED"
        return " | ".join([*cells, " ".join(map(number, self.allowed)), verdict, self.note])


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


Check = Callable[[], Result]

# name -> batch, heads, key/value heads, numbers per head, and what is special.
MODES: dict[str, dict[str, Any]] = {
    "full": {"batch": 2},
    "causal": {"batch": 2, "causal": True},
    "causal, 16 heads over 4": {"batch": 1, "heads": 16, "kv_heads": 4, "causal": True},
    "causal, window 256": {"batch": 1, "causal": True, "window": 256},
    "causal, window 33": {"batch": 1, "causal": True, "window": 33},
    "bias": {"batch": 2, "bias": "learned"},
    "bias per row": {"batch": 2, "bias": "rows"},
    "bias + causal (ALiBi)": {"batch": 1, "causal": True, "bias": "alibi"},
    "bias + left padding": {"batch": 2, "bias": "learned", "padding": "left"},
    "causal, left padding": {"batch": 3, "causal": True, "padding": "left"},
    "causal, right padding": {"batch": 8, "causal": True, "padding": "right"},
    "full, holes": {"batch": 4, "padding": "holes"},
    "causal, 80 per head": {"batch": 1, "head_dim": 80, "causal": True},
    "causal, 36 per head": {"batch": 1, "head_dim": 36, "causal": True},
    "causal, 128 per head": {"batch": 1, "head_dim": 128, "causal": True},
    "scale 1": {"batch": 1, "causal": True, "scale": 1.0, "spread": 0.3},
}


def padding_of(kind: str | None, batch: int, length: int) -> np.ndarray | None:
    if kind is None:
        return None
    rng = np.random.default_rng(batch)
    mask = np.ones((batch, length), bool)
    for row in range(1, batch):
        count = int(rng.integers(1, max(2, length // 2)))
        if kind == "left":
            mask[row, :count] = False
        elif kind == "right":
            mask[row, length - count :] = False
        else:
            mask[row, rng.choice(length, count, replace=False)] = False
    return mask


def check_kernel(
    dtype: str,
    length: int,
    *,
    batch: int,
    heads: int = 8,
    kv_heads: int | None = None,
    head_dim: int = 64,
    causal: bool = False,
    window: int | None = None,
    bias: str | None = None,
    padding: str | None = None,
    scale: float | None = None,
    spread: float = 1.0,
    implementation: str = "flash",
) -> tuple[float, float]:
    """Relative errors of the output and of the worst gradient."""
    rng = np.random.default_rng(length)
    kv_heads = kv_heads or heads
    shapes = [(batch, heads, length, head_dim), *[(batch, kv_heads, length, head_dim)] * 2]
    arrays = [ops.cast(rng.standard_normal(shape, "float32") * spread, dtype) for shape in shapes]
    upstream = ops.cast(rng.standard_normal(shapes[0], "float32"), dtype)
    if bias in ("learned", "rows"):
        rows = 1 if bias == "learned" else batch
        arrays.append(ops.cast(rng.standard_normal((rows, heads, length, length), "float32"), dtype))
    fixed = alibi_bias(alibi_slopes(heads, 8), length, last=length - 1) if bias == "alibi" else None
    keys = padding_of(padding, batch, length)
    seen = np.ones((1, 1, 1, 1), "float32") if keys is None else keys.astype("float32")[:, None, :, None]
    upstream = upstream * ops.cast(seen, dtype)
    scale = scale or head_dim**-0.5

    def run(arrays: list[Any], implementation: str) -> list[Any]:
        def output(*arrays: Any) -> Any:
            mask = make_mask(keys, causal=causal, query_length=length, key_length=length)  # keeps what it computes
            mask = mask.with_window(window) if window else mask
            bias = arrays[3] if len(arrays) > 3 else fixed
            return attend(*arrays[:3], mask=mask, scale=scale, bias=bias, implementation=implementation)[0]

        result, flows = with_gradients(output, arrays, upstream)
        return [ops.cast(result, "float32") * seen, *flows]

    got = run(arrays, implementation)
    want = run([ops.cast(array, "float32") for array in arrays], "eager")
    errors = [relative_error(one, other) for one, other in zip(got, want, strict=True)]
    return errors[0], max(errors[1:])


def with_gradients(function: Callable[..., Any], arrays: list[Any], upstream: Any) -> tuple[Any, list[Any]]:
    """What a function of arrays gives, and how `upstream` flows back to each."""
    if ON_JAX:
        import jax

        @jax.jit  # one by one, each operation would be compiled by itself
        def both(arrays: list[Any], upstream: Any) -> tuple[Any, list[Any]]:
            result, back = jax.vjp(function, *arrays)
            return result, list(back(ops.cast(upstream, result.dtype)))

        return both(arrays, upstream)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arrays)
        result = function(*arrays)
    return result, tape.gradient(result, arrays, ops.cast(upstream, result.dtype))


def relative_error(got: Any, want: Any) -> float:
    got, want = (np.asarray(ops.convert_to_numpy(ops.cast(x, "float32"))).ravel() for x in (got, want))
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return error if np.isfinite(error) else float("inf")


def kernel_checks(lengths: list[int], modes: list[str], implementation: str) -> list[tuple[bool, Check]]:
    """Checks, and whether each may run beside others."""
    checks = []
    for mode in modes:
        for dtype, bound in BOUNDS.items():
            for length in lengths if dtype == "float16" else lengths[2::3] or lengths:
                options = dict(MODES[mode], implementation=implementation)
                if length >= LARGE:
                    options["batch"] = 1 if options.get("padding") is None else 2

                def check(mode=mode, dtype=dtype, length=length, bound=bound, options=options) -> Result:
                    errors = check_kernel(dtype, length, **options)
                    return Result("kernel", mode, dtype, str(length), *errors, (bound, bound))

                checks.append((length < LARGE, guarded(check, "kernel", mode, dtype, str(length))))
    return checks


def guarded(check: Check, *place: str) -> Check:
    """A check whose failure is a result too."""

    def run() -> Result:
        try:
            return check()
        except Exception as error:  # what cuDNN and XLA refuse comes as errors of several classes
            served = not (ON_JAX and "cannot serve this call: on JAX" in str(error))
            return Result(*place, None, None, (), f"{type(error).__name__}: {str(error)[:200]}", served)

    return run


# Whole models --------------------------------------------------------------------------------------------------------

LENGTH = 256
FAMILIES = ("llama", "gpt_neox", "gpt_neo", "mpt", "mpnet")


def small_model(family: str, layers: int) -> tuple[Any, Any]:
    """Class and configuration, layers of 256 numbers."""
    import tfmodels
    from tfmodels.auto import FAMILIES as REGISTERED

    sizes = {"vocab_size": 500, "hidden_size": 256, "num_hidden_layers": layers, "num_attention_heads": 4}
    own = {
        "llama": {**sizes, "intermediate_size": 512, "num_key_value_heads": 2},
        "gpt_neox": {**sizes, "intermediate_size": 512},
        "gpt_neo": {
            "vocab_size": 500,
            "hidden_size": 256,
            "num_layers": layers,
            "num_heads": 4,
            "attention_types": [[["global", "local"], layers // 2], [["global"], layers % 2]],
            "window_size": 64,
        },
        "mpt": {"vocab_size": 500, "d_model": 256, "n_heads": 4, "n_layers": layers},
        "mpnet": {**sizes, "intermediate_size": 512, "attention_probs_dropout_prob": 0.0},
    }
    stem = REGISTERED[family].stem
    head = "ForMaskedLM" if family == "mpnet" else "ForCausalLM"
    return getattr(tfmodels, f"TF{stem}{head}"), getattr(tfmodels, f"{stem}Config")(**own[family])


def model_checks(families: list[str], layers: int) -> list[tuple[bool, Check]]:
    # Making models and tracing is Python, one at a time; compiling and running is not.
    tracing = threading.Lock()
    ids = np.random.default_rng(0).integers(3, 500, (4, LENGTH))
    # float16 with and without padding: bfloat16 takes the same path as float16 does.
    kinds = [("float16", False), ("float16", True), ("bfloat16", True)]

    def check_of(family: str, dtype: str, padded: bool) -> Check:
        def check() -> Result:
            mask = padding_of("right" if padded else None, *ids.shape)
            mask = np.ones_like(ids) if mask is None else mask.astype("int64")
            inputs = {"input_ids": ids, "labels": np.where(mask == 1, ids, -100)}
            inputs |= {"attention_mask": mask} if padded else {}
            with tracing:
                keras.utils.set_random_seed(1)
                cls, config = small_model(family, layers)
                exact = cls(config, dtype="float32", attn_implementation="eager")
                models = {name: cls(config, dtype=dtype, attn_implementation=name) for name in ("eager", "auto")}
                for model in models.values():
                    for mine, theirs in zip(model.weights, exact.weights, strict=True):
                        mine.assign(theirs)
                fast = traced(models["auto"], inputs, mask, jit_compile=True)
                report = models["auto"].attention_report().replace("\n", "; ")
            got = fast()
            with tracing:  # operation by operation: there is nothing to compile
                want = traced(exact, inputs, mask, jit_compile=False)()
                plain = traced(models["eager"], inputs, mask, jit_compile=False)()
            errors = [relative_error(*pair) for pair in zip(got, want, strict=True)]
            allowed = tuple(3 * relative_error(*pair) + 1e-3 for pair in zip(plain, want, strict=True))
            return Result("model", family, dtype, "padded" if padded else "whole", *errors, allowed, report)

        return guarded(check, "model", family, dtype, "padded" if padded else "whole")

    return [(True, check_of(family, *kind)) for family in families for kind in kinds]


def traced(model: Any, inputs: dict[str, np.ndarray], mask: np.ndarray, *, jit_compile: bool) -> Callable[[], Any]:
    """A call that gives logits of tokens, and the gradients of all weights as one vector."""
    import tensorflow as tf

    weights = model.trainable_variables

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run() -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            output = model(**inputs)
        flows = tape.gradient(output.loss, [weight.value for weight in weights])
        pairs = zip(weights, flows, strict=True)
        flat = [
            tf.zeros([int(np.prod(w.shape))])
            if f is None
            else tf.reshape(tf.cast(tf.convert_to_tensor(f), "float32"), [-1])
            for w, f in pairs
        ]
        return tf.cast(output.logits, "float32") * mask[:, :, None].astype("float32"), tf.concat(flat, 0)

    return run.get_concrete_function()


# Decoding ------------------------------------------------------------------------------------------------------------

# rows, in, width of each matrix
PRODUCTS = (
    (1, 1024, 3072),
    (1, 2048, 2048, 512, 512),
    (2, 768, 768, 200),
    (4, 4096, 1024),
    (8, 1000, 2048, 2048),
    (1, 2048, 50304),
)
# batch, heads, key/value heads, numbers per head, bias
CACHES = ((1, 16, 16, 64, False), (4, 32, 8, 64, False), (2, 8, 2, 80, True), (3, 4, 4, 128, True))


def decoding_kernel_checks(lengths: list[int]) -> list[tuple[bool, Check]]:
    import tensorflow as tf

    from tfmodels.kernels import triton_decoding

    def compiled(function: Callable[..., Any], *arrays: Any) -> Any:
        return tf.function(function, jit_compile=True, autograph=False)(*arrays)

    def product(dtype: str, rows: int, width: int, *outs: int, stored: str) -> tuple[float, float]:
        rng = np.random.default_rng(rows)
        x = tf.cast(rng.standard_normal((rows, width), "float32"), dtype)
        spread = width**-0.5 if stored != "int8" else 40.0
        matrices = [tf.cast(rng.standard_normal((width, out), "float32") * spread, stored) for out in outs]
        want = [tf.matmul(tf.cast(x, "float32"), tf.cast(matrix, "float32")) for matrix in matrices]
        got = compiled(triton_decoding.matvec, x, *matrices)
        table = compiled(triton_decoding.table_product, x, tf.transpose(matrices[0]))
        return relative_error(tf.concat(got, 1), tf.concat(want, 1)), relative_error(table, want[0])

    def attention(
        dtype: str, length: int, batch: int, heads: int, kv_heads: int, head_dim: int, biased: bool
    ) -> tuple[float, None]:
        rng = np.random.default_rng(length)
        shapes = [(batch, heads, 1, head_dim), *[(batch, kv_heads, length, head_dim)] * 2]
        arrays = [tf.cast(rng.standard_normal(shape, "float32"), dtype) for shape in shapes]
        seen = rng.random((batch, length)) < 0.7
        seen[:, -1] = True
        bias = tf.constant(rng.standard_normal((1, heads, length)), "float32") if biased else None
        scale = head_dim**-0.5
        got = compiled(
            lambda *arrays: triton_decoding.attention(*arrays, tf.constant(seen), scale=scale, bias=bias), *arrays
        )
        mask = make_mask(seen, causal=False, query_length=1, key_length=length)
        plain = [tf.cast(array, "float32") for array in arrays]
        full = None if bias is None else bias[:, :, tf.newaxis]
        want, _ = attend(*plain, mask=mask, scale=scale, bias=full, implementation="eager")
        return relative_error(got, want), None

    checks = []
    for dtype, bound in BOUNDS.items():
        for sizes, stored in itertools.product(PRODUCTS, (dtype, "int8")):
            case = "products" if stored == dtype else "products with int8"

            def check(dtype=dtype, sizes=sizes, stored=stored, case=case, bound=bound) -> Result:
                errors = product(dtype, *sizes, stored=stored)
                return Result("decoding", case, dtype, str(sizes), *errors, (bound, bound))

            checks.append((True, guarded(check, "decoding", case, dtype, str(sizes))))
        for sizes in CACHES:
            for length in lengths:

                def check(dtype=dtype, sizes=sizes, length=length, bound=bound) -> Result:
                    errors = attention(dtype, length, *sizes)
                    return Result("decoding", "attention", dtype, f"{sizes} {length}", *errors, (bound,))

                checks.append((True, guarded(check, "decoding", "attention", dtype, f"{sizes} {length}")))
    return checks


def decoding_checks(families: list[str], layers: int) -> list[tuple[bool, Check]]:
    """Checks of whole models: `generate` against one pass over what it generated."""
    rng = np.random.default_rng(0)
    prompt, new = rng.integers(3, 500, (3, 20)), 12
    mask = np.ones_like(prompt)
    mask[1, :7] = 0

    def check_of(family: str, dtype: str, int8: bool = False) -> Check:
        place = "left-padded, int8" if int8 else "left-padded"

        def check() -> Result:
            keras.utils.set_random_seed(1)
            cls, config = small_model(family, layers)

            def made(like: Any = None, **options: Any) -> Any:
                model = cls(config, **options)
                if int8:
                    model.quantize("int8", config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
                for mine, theirs in zip(model.weights, like.weights, strict=True) if like else ():
                    mine.assign(theirs)
                return model

            exact = made(dtype="float32", attn_implementation="eager")
            model = made(exact, dtype=dtype)
            settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "use_cache": True}
            settings |= {"return_dict_in_generate": True, "output_logits": True}
            output = model.generate(prompt, attention_mask=mask, **settings)
            report = model.attention_report().replace("\n", "; ")
            got = np.stack([np.asarray(step, "float32") for step in output.logits], axis=1)
            ids = np.asarray(output.sequences)[:, :-1]
            whole = np.concatenate([mask, np.ones((len(mask), new - 1), mask.dtype)], axis=1)

            def at_once(model: Any) -> np.ndarray:
                positions = np.maximum(np.cumsum(whole, axis=1) - 1, 0)
                inputs = {"input_ids": ids, "attention_mask": whole, "position_ids": positions, "use_cache": False}
                return np.asarray(ops.cast(model(**inputs).logits, "float32"))[:, -new:]

            want = at_once(exact)
            plain = made(exact, dtype=dtype, attn_implementation="eager")
            allowed = 3 * relative_error(at_once(plain), want) + 1e-3
            return Result("decoding", family, dtype, place, relative_error(got, want), None, (allowed,), report)

        return guarded(check, "decoding", family, dtype, place)

    decoders = [family for family in families if family != "mpnet"]
    whole = [(False, check_of(family, dtype)) for family in decoders for dtype in BOUNDS]
    return whole + [(False, check_of(family, "bfloat16", int8=True)) for family in decoders]


# Reference cases -----------------------------------------------------------------------------------------------------


def reference_checks(families: list[str]) -> list[tuple[bool, Check]]:
    """A check per case folder, of its calls in float32."""
    import reference_cases

    calls: dict[Path, list[dict[str, Any]]] = {}
    for _, folder, call in reference_cases.find({"forward", "steps"}):
        if folder.parent.name in families and call.get("dtype", "float32") == "float32":
            calls.setdefault(folder, []).append(call)

    def check_of(folder: Path) -> Check:
        def check() -> Result:
            worst, place = 0.0, ""
            for call in calls[folder]:
                run = getattr(reference_cases, f"{call['kind']}_differences")
                for found in run(folder, call):
                    part = found.worst / found.atol
                    if not part <= worst:  # also where it is no number
                        worst, place = part, f"{call['name']} {found.where}"
            return Result("reference", folder.parent.name, "float32", folder.name, worst, None, (1.0,), place)

        return guarded(check, "reference", folder.parent.name, "float32", folder.name)

    return [(False, check_of(folder)) for folder in calls]


# The command ---------------------------------------------------------------------------------------------------------


def run_checks(checks: list[tuple[bool, Check]], threads: int, deadline: float) -> tuple[list[Result], int]:
    """Run and print checks as they end; what was found, and how many there was no time for."""
    results: list[Result] = []

    def in_time(check: Check) -> Result | None:
        return check() if time.time() < deadline else None

    def keep(found: Iterable[Result | None]) -> None:
        for result in found:
            if result is not None:
                results.append(result)
                print(result, flush=True)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        beside = [pool.submit(in_time, check) for may, check in checks if may]
        keep(future.result() for future in concurrent.futures.as_completed(beside))
    keep(in_time(check) for may, check in checks if not may)
    return results, len(checks) - len(results)


def summary(results: list[Result]) -> str:
    """Markdown: the worst of every check, case and dtype."""
    lines = ["| check | case | dtype | checks | output | gradients | worst / allowed | |", "|" + "---|" * 8]
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault((result.check, result.case, result.dtype), []).append(result)
    for (check, case, dtype), own in groups.items():
        outputs, gradients = (
            [getattr(r, n) for r in own if getattr(r, n) is not None] for n in ("output", "gradients")
        )
        parts = [
            error / bound
            for r in own
            for error, bound in zip([e for e in (r.output, r.gradients) if e is not None], r.allowed, strict=True)
        ]
        bad = [r.detail for r in own if not r.good]
        count = sum(r.served for r in own)
        counts = str(count) if count == len(own) else f"{count}; not served: {len(own) - count}"
        cells = [check, case, dtype, counts, *(number(max(x)) if x else "-" for x in (outputs, gradients))]
        cells += [f"{max(parts):.2f}" if parts else "-", "FAILED: " + ", ".join(bad) if bad else "ok"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def names(known: Iterable[str], separator: str = ",") -> Callable[[str], list[str]]:
    """The type of an argument that is a list of some names."""

    def parse(text: str) -> list[str]:
        chosen = text.split(separator)
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: {separator.join(known)} are possible")
        return chosen

    return parse


def prepare_device(device: str) -> str:
    """Choose the device and switch TF32 off; what to call it."""
    if ON_JAX:
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
        return f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    import tensorflow as tf

    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return f"CPU, TensorFlow {tf.__version__}"
    tf.config.experimental.enable_tensor_float_32_execution(False)
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return f"{details.get('device_name')}, TensorFlow {tf.__version__}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", *WHAT), default="all")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: no fused kernels (%(default)s)")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of kernels (%(default)s)")
    parser.add_argument("--modes", type=names(MODES, ";"), default=list(MODES), help="of kernels: " + "; ".join(MODES))
    parser.add_argument("--families", type=names(FAMILIES), default=list(FAMILIES), help=f"({','.join(FAMILIES)})")
    parser.add_argument("--layers", type=int, default=2, metavar="N", help="of models (%(default)s)")
    parser.add_argument("--threads", type=int, default=8, metavar="N", help="to compile in; on JAX one (%(default)s)")
    parser.add_argument(
        "--budget", type=float, default=float("inf"), metavar="SECONDS", help="start no check after so long (no limit)"
    )
    options = parser.parse_args(arguments)
    deadline = time.time() + options.budget
    what = list(WHAT) if options.what == "all" else [options.what]
    if ON_JAX and what != ["kernels"]:
        sys.exit("gpu_check: on JAX only kernels are checked")
    if options.device == "gpu" and (reason := cudnn_attention.unavailable()) is not None:
        sys.exit(f"gpu_check: {reason}")
    if options.device == "cpu" and "kernels" in what:
        if options.what == "kernels":
            sys.exit("gpu_check: the kernels need a GPU")
        what.remove("kernels")
        print("no check of the kernels: they need a GPU")
    print(f"{prepare_device(options.device)}, Keras {keras.__version__}", flush=True)
    checks = []
    if "kernels" in what:
        checks += kernel_checks([int(length) for length in options.lengths.split(",")], options.modes, "flash")
    if "models" in what:
        checks += model_checks(options.families, options.layers)
    if "decoding" in what:
        from tfmodels.kernels import triton_decoding

        reason = triton_decoding.unavailable()
        if reason is None and options.device == "gpu":
            checks += decoding_kernel_checks([int(length) for length in options.lengths.split(",")])
        else:
            print(f"no check of the kernels for decoding: {reason or 'they need a GPU'}")
        checks += decoding_checks(options.families, options.layers)
    if "reference" in what:
        checks += reference_checks(options.families)
    # JAX records what it runs as CUDA graphs, which kernels started by other threads would break.
    results, left = run_checks(checks, 1 if ON_JAX else options.threads, deadline)
    print("\n" + summary(results))
    if left:
        print(f"\n{left} of {len(checks)} checks were not run for lack of time")
    good = all(result.good for result in results)
    print("\nall that ran passed" if good else "\nFAILED", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
