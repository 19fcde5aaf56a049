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
    from htaf_snn import nn as hnn
    from htaf_snn import surrogate
    from htaf_snn.kernels.binary_linear import triton_gpu as binary
    from htaf_snn.kernels.heaviside_linear import triton_gpu as heaviside
    from htaf_snn.kernels.neuron import triton_gpu as neuron
    from htaf_snn.kernels.neuron.kernel import Kernel
    from htaf_snn.kernels.elementwise import triton_gpu as elementwise
    from htaf_snn.kernels.triton_gpu import bound
    from htaf_snn.neurons import NEURONS

    def compile(kernel, types=None, **constants):
        constants = {"BLOCK": 1024} | constants
        signature, values = {}, {}
        for i, name in enumerate(kernel.arg_names):
            if name in constants:
                signature[name], values[(i,)] = "constexpr", constants[name]
            elif types is not None:
                signature[name] = types.get(name, "i32")
            else:
                numbers = dict.fromkeys(("hard_share", "soft_share", "hard", "soft", "p0", "p1", "p2"), "fp32")
                numbers |= {"steps": "i32", "size": "i32"} | dict.fromkeys(("x_all", "output_all"), "*bf16")
                signature[name] = numbers.get(name, "*bf16" if name in ("x", "spikes", "grad_spikes") else "*fp32")
        source = ASTSource(kernel, signature, values)
        target = GPUTarget("cuda", int(sys.argv[1]), 32)
        compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False})
        assert len(compiled.asm["cubin"]) > 1000
        assert compiled.metadata.shared <= 99 * 1024, "more shared memory than the smallest of these GPUs has"
        return compiled.asm["ptx"]

    def compile_neuron(name, formula, options, learned, scalars, *flags):
        sources, forward, backward = neuron.compiled(Kernel(name, options, learned, formula, flags), scalars)
        saved = {"saved_all": "*bf16" if "is_rounded" in flags else "*fp32"}
        ptx = compile(forward, types(forward, saved), BLOCK=neuron.BLOCK, STAGES=neuron.stages(sources.forward))
        # Those of the surrogate may be fused, as the formula rounds only itself; an exponential rounds as a whole.
        is_exact = "is_smooth" not in flags and "exp(" not in sources.forward.text
        assert not is_exact or "fma" not in ptx, "a fused multiply-add rounds differently from the reference"
        compile(backward, types(backward, saved), BLOCK=neuron.BLOCK, STAGES=neuron.stages(sources.backward))

    def types(kernel, known):
        known = known | {"steps": "i32", "size": "i32", "x_all": "*bf16", "output_all": "*bf16"}
        return {name: known.get(name, "*fp32" if name.endswith("_all") else "fp32") for name in kernel.arg_names}

    is_brief = sys.argv[2] == "briefly"
    for i, name in enumerate(surrogate.names()[:2] if is_brief else surrogate.names()):
        formula = surrogate.resolve(name).formula
        primitive, derivative, count = bound(formula.primitive), bound(formula.derivative), len(formula.parameters)
        compile(elementwise._primitive_kernel, function=primitive, COUNT=count)
        compile(elementwise._primitive_kernel, function=bound(formula.primitive, True), COUNT=count)
        compile(elementwise._gradient_kernel, function=derivative, COUNT=count)
        reset, flag = i % 3, i % 2 == 0
        flags = ["is_smooth", "keeps"] if flag else ["is_rounded"]
        scalars = ("beta", "threshold") if flag else ()
        compile_neuron("leaky", formula.name, (reset, i % 2), ("beta",) if flag else (), scalars, *flags)
    for i, (name, one) in enumerate(NEURONS.items()):
        if is_brief and name not in ("leaky", "lif_adex_refrac"):
            continue
        options = tuple(i % len(values) for values in one.options.values())
        flags = [["keeps"], ["is_rounded"], ["is_smooth"]][i % 3] if one.spikes else ["keeps"]
        learned = one.prepared if i % 2 else ()
        compile_neuron(name, "htaf" if one.spikes else "", options, learned, one.prepared[: i % 3], *flags)
        if "smooth" not in flags and one.spikes and "refrac" not in name:
            compile_neuron(name, "", options, learned, (), "is_given")
    @hnn.neuron(states={"v": 0.0, "w": 0.0}, parameters={"threshold": 0.5})
    def clock(x, v, w, *, threshold, spike):
        return 2 * threshold, threshold + 1, w * 0.5

    compile_neuron(clock.definition.key, "htaf", (), (), ("threshold",))
    compile_neuron(clock.definition.key, "htaf", (), ("threshold",), ())
    for x in ("*fp32", "*i64", "*u8"):
        compile(binary._pack_kernel, {"x": x, "out": "*i64"}, BLOCK=16)
    sums = {"words": "*i64", "weight": "*i64", "offset": "*i32", "thresholds": "*i32", "out": "*i32"}
    for rows in (1, 16, 256):
        assert "popc.b64" in compile(binary._product_kernel, sums, BITS=False, **binary._tile(rows))
        compile(binary._product_kernel, sums | {"out": "*i64"}, BITS=True, **binary._tile(rows))
    for kind in ("*i8", "*i16", "*i32"):
        compile(heaviside._product_kernel, {"words": "*i64", "weight": kind, "out": "*i32"}, OUTPUTS=128, DEPTH=32)
"""


@pytest.mark.parametrize(
    ("architecture", "extent"),
    [(90, "briefly"), *(pytest.param(number, "whole", marks=pytest.mark.thorough) for number in (80, 90))],
)
def test_kernels_compile_ahead_of_time(architecture, extent, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    code = tmp_path / "kernels.py"  # a file, from which the text of a neuron of one's own is read
    code.write_text(textwrap.dedent(CODE))
    run = subprocess.run(
        [sys.executable, str(code), str(architecture), extent],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
