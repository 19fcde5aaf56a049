"""All Triton kernels compiled to machine code for two GPUs, on a machine that needs none."""

import os
import subprocess
import sys
import textwrap

import pytest

CODE = """
    import sys
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from htaf_snn import surrogate
    from htaf_snn.kernels.binary_linear import triton_gpu as binary
    from htaf_snn.kernels.heaviside_linear import triton_gpu as heaviside
    from htaf_snn.kernels.lif import triton_gpu as lif
    from htaf_snn.kernels.elementwise import triton_gpu as elementwise
    from htaf_snn.kernels.triton_gpu import BLOCK, bound

    def compile(kernel, types=None, **constants):
        constants = {"BLOCK": BLOCK} | constants
        signature, values = {}, {}
        for i, name in enumerate(kernel.arg_names):
            if name in constants:
                signature[name], values[(i,)] = "constexpr", constants[name]
            elif types is not None:
                signature[name] = types.get(name, "i32")
            else:
                numbers = dict.fromkeys(("hard", "soft", "p0", "p1", "p2"), "fp32") | {"steps": "i32", "size": "i32"}
                signature[name] = numbers.get(name, "*bf16" if name in ("x", "spikes", "grad_spikes") else "*fp32")
        source = ASTSource(kernel, signature, values)
        target = GPUTarget("cuda", int(sys.argv[1]), 32)
        compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False})
        assert len(compiled.asm["cubin"]) > 1000
        return compiled.asm["ptx"]

    for i, name in enumerate(surrogate.names()):
        formula = surrogate.resolve(name).formula
        primitive, derivative, count = bound(formula.primitive), bound(formula.derivative), len(formula.parameters)
        reset, flag = i % 3, i % 2 == 0
        ptx = compile(
            lif._leaky_forward_kernel, primitive=primitive, COUNT=count, RESET=reset, DELAY=flag, SMOOTH=not flag,
            KEEP=flag,
        )
        assert not flag or "fma" not in ptx, "a fused multiply-add rounds differently from the reference"
        compile(
            lif._leaky_backward_kernel, derivative=derivative, COUNT=count, RESET=reset, DELAY=flag, LEARNS=flag,
            HAS_SLOPES=not flag, HAS_POTENTIALS=flag, KEEP_STEPS=not flag,
        )
        compile(elementwise._primitive_kernel, function=primitive, COUNT=count)
        compile(elementwise._gradient_kernel, function=derivative, COUNT=count)
        compile(lif._cuba_forward_kernel, primitive=primitive, COUNT=count, SMOOTH=not flag)
        compile(
            lif._cuba_backward_kernel, derivative=derivative, COUNT=count, DETACH=flag, LEARNS=flag,
            HAS_SLOPES=not flag, KEEP_STEPS=not flag,
        )
    for x in ("*fp32", "*i64", "*u8"):
        compile(binary._pack_kernel, {"x": x, "out": "*i64"}, BLOCK=16)
    sums = {"words": "*i64", "weight": "*i64", "offset": "*i32", "thresholds": "*i32", "out": "*i32"}
    assert "popc.b64" in compile(binary._product_kernel, sums, BITS=False, ROWS=16)
    compile(binary._product_kernel, sums | {"out": "*i64"}, BITS=True, ROWS=16)
    compile(heaviside._product_kernel, {"words": "*i64", "weight": "*i32", "out": "*i32"}, BLOCK=128)
"""


@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_ahead_of_time(architecture, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE), str(architecture)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
