"""Triton kernels inside programs that TensorFlow's XLA compiles for an NVIDIA GPU.

XLA's GPU compiler contains Triton's, and compiles the Triton IR that it finds in a custom call of a certain name along
with the rest of a program. The `triton` package makes that IR from Python while a program is traced, in a process of
its own (`triton_compiler`). Kernels that come in this way become a part of the CUDA graphs that XLA makes of loops;
kernels given as PTX do not.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import util
from pathlib import Path
from typing import Any

from tfmodels.runtime import device as nvidia
from tfmodels.utils.text import quote

_TARGET = "__gpu$xla.gpu.triton"


def missing() -> str | None:
    """The reason why this process cannot call Triton kernels, as a sentence; None where it can."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return f"a Triton kernel needs Keras on TensorFlow, and this is {keras.backend.backend()}"
    return _missing_here()


@functools.cache
def _missing_here() -> str | None:
    if util.find_spec("triton") is None:
        return "the package triton is not installed (pip install 'tfmodels[gpu]')"
    reason = nvidia.missing()
    return None if reason is None else f"a Triton kernel needs {reason}"


def tried(trial: Callable[[], str]) -> str | None:
    """The reason why this process cannot run some kernels, or None: `missing`, or what a trial of them shows.

    Args:
        trial: runs the kernels in float16. Returns what is wrong with their numbers, or "". It is called once, outside
            of a program that is being traced.
    """
    return missing() or _found(trial)


@functools.cache
def _found(trial: Callable[[], str]) -> str | None:
    # In a thread of its own, where nothing is traced. `tf.init_scope` would stop the tapes of a trial with gradients.
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(trial).result() or None
        except Exception as error:  # Triton's and XLA's errors are of many classes
            return f"a Triton kernel could not be compiled: {type(error).__name__}: {str(error)[:300]}"


@functools.cache
def triton_ir(kernel: str, dtypes: tuple[str, ...], sizes: tuple[tuple[str, Any], ...], warps: int) -> str:
    """The Triton IR of a kernel for sizes that are known now.

    Args:
        kernel: its name in `triton_products`, `triton_attention` or `triton_flash`.
        dtypes: of its tensors, in order.
        sizes: names and values of its compile-time arguments.
        warps: that run a program.

    Raises:
        RuntimeError: Triton refuses the kernel, or cannot run; the message holds its error.
    """
    request = json.dumps({"kernel": kernel, "dtypes": dtypes, "sizes": dict(sizes), "warps": warps})
    with _one_at_a_time:
        for _ in range(2):  # something may have ended the process while it was idle: another one may do it
            if (answer := _answer(request)) is not None:
                break
            code = _compiler().wait()
            _compiler.cache_clear()
        else:
            raise RuntimeError(f"Triton's process ended with code {code} before it had compiled {quote(kernel)}.")
    if "error" in answer:
        raise RuntimeError(f"Triton could not compile {quote(kernel)}: {answer['error']}")
    return answer["ir"]


def _answer(request: str) -> dict[str, str] | None:
    """The compiler's answer to a request, or None where its process has ended."""
    compiler = _compiler()
    try:
        compiler.stdin.write(request + "\n")
        compiler.stdin.flush()
        line = compiler.stdout.readline()
    except BrokenPipeError:
        return None
    return json.loads(line) if line else None


_one_at_a_time = threading.Lock()


@functools.cache
def _compiler() -> subprocess.Popen:
    """The process that runs `triton_compiler`; it ends with this one."""
    script = Path(__file__).with_name("triton_compiler.py")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(script)], text=True, **pipes)


# A forked process must not talk on its parent's pipes.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compiler.cache_clear)


def launch(
    kernel: str,
    operands: Sequence[Any],
    results: Sequence[Any],
    *,
    grid: Sequence[int],
    warps: int = 4,
    stages: int = 3,
    in_place: Mapping[int, int] | None = None,
    **sizes: Any,
) -> list[Any]:
    """Call a kernel in a program that is being traced for XLA.

    Args:
        kernel: its name in `triton_products`, `triton_attention` or `triton_flash`; its tensors are the operands, then
            the results.
        operands: tensors or variables.
        results: a `tf.TensorSpec` for each result.
        grid: number of programs along one to three axes.
        warps, stages: how many warps run a program, and how many loads its loops have under way.
        in_place: numbers of operands, and of the results that take their memory over.
        **sizes: the kernel's compile-time arguments.

    Returns:
        The results.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    operands = [tf.convert_to_tensor(operand) for operand in operands]
    dtypes = tuple(tensor.dtype.name for tensor in (*operands, *results))
    ir = triton_ir(kernel, dtypes, tuple(sizes.items()), warps)
    config = backend_config(kernel, ir, grid, warps=warps, stages=stages)
    if in_place:
        shapes = [(tuple(tensor.shape), tensor.dtype.name) for tensor in (*operands, *results)]
        tensors = xla.call_module(
            operands,
            version=9,
            module=module_in_place(shapes[: len(operands)], shapes[len(operands) :], config, in_place),
            Tout=[result.dtype for result in results],
            Sout=[tuple(result.shape) for result in results],
            platforms=["CUDA"],
        )
    else:
        tensors = xla.custom_call_v2(_TARGET, operands, results, backend_config=config)
    for tensor, result in zip(tensors, results, strict=True):
        tensor.set_shape(result.shape)
    return list(tensors)


def backend_config(kernel: str, ir: str, grid: Sequence[int], *, warps: int, stages: int) -> str:
    """The call's configuration as XLA reads it, an MLIR dictionary.

    Example:
        >>> backend_config("add", "module {}", (3,), warps=4, stages=1)[:67]
        '{name = "add", ir = "module {}", num_warps = 4 : i32, num_stages = '
    """
    x, y, z = (*grid, 1, 1)[:3]
    numbers = {"num_warps": warps, "num_stages": stages, "grid_x": x, "grid_y": y, "grid_z": z}
    fields = ", ".join(f"{name} = {value} : i32" for name, value in numbers.items())
    return f'{{name = "{kernel}", ir = {json.dumps(ir)}, {fields}}}'


# The names of dtypes in MLIR.
_MLIR = {
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "int32": "i32",
    "int8": "i8",
    "uint8": "ui8",
    "bool": "i1",
}

Shapes = Sequence[tuple[tuple[int, ...], str]]


def module_in_place(operands: Shapes, results: Shapes, config: str, in_place: Mapping[int, int]) -> str:
    """A StableHLO module of one call of a kernel, some results of which take the memory of operands over.

    `custom_call_v2` cannot say that; XLA keeps a copy where something else reads the operand later.

    Args:
        operands, results: shapes and dtypes.
        config: what `backend_config` returns.
        in_place: numbers of operands, and of their results; there are two results at least.

    Example:
        >>> cache = ((2, 4), "float16")
        >>> text = module_in_place([cache], [cache, ((2,), "float32")], '{name = "write"}', {0: 0})
        >>> "output_tuple_indices = [0], operand_index = 0" in text
        True
    """

    def typed(tensor: tuple[tuple[int, ...], str]) -> str:
        shape, dtype = tensor
        return f"tensor<{''.join(f'{size}x' for size in shape)}{_MLIR[dtype]}>"

    def layouts(tensors: Shapes) -> str:
        orders = (", ".join(str(axis) for axis in reversed(range(len(shape)))) for shape, _ in tensors)
        return ", ".join(
            f"dense<[{order}]> : tensor<{len(shape)}xindex>" for order, (shape, _) in zip(orders, tensors, strict=True)
        )

    arguments = ", ".join(f"%arg{index}: {typed(tensor)}" for index, tensor in enumerate(operands))
    given = ", ".join(f"%arg{index}" for index in range(len(operands)))
    takes, gives = (", ".join(map(typed, tensors)) for tensors in (operands, results))
    aliases = ", ".join(
        f"#stablehlo.output_operand_alias<output_tuple_indices = [{result}], operand_index = {operand}, "
        f"operand_tuple_indices = []>"
        for operand, result in in_place.items()
    )
    made = ", ".join(f"%0#{index}" for index in range(len(results)))
    return (
        f"module @in_place {{\n  func.func public @main({arguments}) -> ({gives}) {{\n"
        f'    %0:{len(results)} = stablehlo.custom_call @"{_TARGET}"({given}) {{api_version = 4 : i32, '
        f"backend_config = {config}, output_operand_aliases = [{aliases}], "
        f"operand_layouts = [{layouts(operands)}], result_layouts = [{layouts(results)}]}} "
        f": ({takes}) -> ({gives})\n    return {made} : {gives}\n  }}\n}}\n"
    )
