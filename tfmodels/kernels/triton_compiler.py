"""Makes Triton IR of the kernels in the modules beside it, in a process of its own; `triton_call` runs it.

Triton and TensorFlow each bring an LLVM, and Triton from 3.7 on aborts a process in which there is another one. So
neither this file nor the modules of kernels are ever imported beside TensorFlow: this one runs as a
script, answers each line of JSON with one, and ends with its input.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import triton_attention  # beside this script
import triton_flash
import triton_norms
import triton_packed
import triton_products
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

TYPES = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32", "int32": "*i32"}
TYPES |= {"int8": "*i8", "uint8": "*u8", "bool": "*i8"}
ALIGNMENT = 16  # bytes; XLA's buffers are aligned to more

# Where in which file an operation comes from: the same program shall have the same IR wherever it is installed.
LOCATION = re.compile(r"^#loc.*\n| loc\((?:[^()]|\([^()]*\))*\)", re.MULTILINE)


def triton_ir(kernel: str, dtypes: list[str], sizes: dict[str, Any], warps: int) -> str:
    """The arguments are those of `triton_call.triton_ir`."""
    places = (triton_products, triton_packed, triton_attention, triton_norms, triton_flash)
    function = getattr(next((place for place in places if hasattr(place, kernel)), places[-1]), kernel)
    tensors = [name for name in function.arg_names if name not in sizes]
    types = {name: TYPES[dtype] for name, dtype in zip(tensors, dtypes, strict=True)}
    source = ASTSource(
        fn=function,
        signature={name: types.get(name, "constexpr") for name in function.arg_names},
        constexprs=sizes,
        attrs={(function.arg_names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in tensors},
    )
    # The first of the stages of `triton.compile`: XLA goes through the others, for the GPU that it runs on.
    target = GPUTarget("cuda", 80, 32)
    backend = make_backend(target)
    options = backend.parse_options({"num_warps": warps})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    generators, modules = backend.get_codegen_implementation(options), backend.get_module_map()
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, source.language)
    module = stages["ttir"](source.make_ir(target, options, generators, modules, context), {})
    return LOCATION.sub("", str(module))


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what Triton has to say is no answer
    for line in sys.stdin:
        try:
            answer = {"ir": triton_ir(**json.loads(line))}
        except Exception as error:  # Triton's errors are of many classes
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
