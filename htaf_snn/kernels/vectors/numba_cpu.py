"""Operations on a few numbers side by side that LLVM does not turn into vectors by itself, as intrinsics for Numba.

In a loop it would have to prove each time that the arrays do not share memory. Indices are not checked.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_LANES = 8


class _Builder:
    """Vectors of arrays' elements, written with a builder of LLVM."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kinds: Sequence[Any], arguments: Sequence[ir.Value]):
        self.ir = builder
        self.arguments = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
            for kind, value in zip(kinds, arguments, strict=True)
        ]

    def place(self, pointer: ir.Value, at: ir.Value, lanes: int) -> ir.Value:
        """Return where a vector of an array begins."""
        return self.ir.bitcast(self.ir.gep(pointer, [at]), ir.VectorType(pointer.type.pointee, lanes).as_pointer())

    def load(self, pointer: ir.Value, at: ir.Value, lanes: int) -> ir.Value:
        size = pointer.type.pointee.width // 8 if isinstance(pointer.type.pointee, ir.IntType) else 4
        return self.ir.load(self.place(pointer, at, lanes), align=size)

    def of_all(self, value: ir.Value, lanes: int) -> ir.Value:
        """Return a vector of one value."""
        kind, zero = ir.VectorType(value.type, lanes), ir.Constant(_I32, 0)
        one = self.ir.insert_element(ir.Constant(kind, ir.Undefined), value, zero)
        mask = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        return self.ir.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _intrinsic(result: Any, names: str, build: Callable[[_Builder], ir.Value | None]) -> Callable[..., Any]:
    """Return an intrinsic with arguments of the given names, for which `build` writes the instructions."""

    def intrinsic(_context: Any, *kinds: Any) -> tuple:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> Any:
            value = build(_Builder(context, builder, signature.args, arguments))
            return context.get_dummy_value() if value is None else value

        return result(*kinds), generate

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("context", *names.split())]
    intrinsic.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Numba reads it
    return extending.intrinsic(intrinsic)


class _Sums:
    """A given number of integer sums, a multiple of 8, side by side in registers."""

    def __init__(self, b: _Builder, kind: ir.Type, outputs: int):
        self.b, self.vector = b, ir.VectorType(kind, _LANES)
        self.places = [ir.Constant(_I64, place) for place in range(0, outputs, _LANES)]
        zero = ir.Constant(self.vector, [0] * _LANES)
        self._sums = [cgutils.alloca_once_value(b.ir, zero) for _ in self.places]
        for one in self._sums:  # again in each call, as the memory is that of the whole function
            b.ir.store(zero, one)

    def add(self, term: Callable[[ir.Value, ir.Value], ir.Value]) -> None:
        """Replace each vector of sums by what `term` makes of it and of its place."""
        for place, one in zip(self.places, self._sums, strict=True):
            self.b.ir.store(term(self.b.ir.load(one), place), one)

    def write(self, offset: ir.Value, at: ir.Value, factor: ir.Value, values: ir.Value) -> None:
        """Write offset[at + j] + factor * sum, int32."""
        b, integers = self.b, ir.VectorType(_I32, _LANES)
        factor = factor if factor.type == _I32 else b.ir.trunc(factor, _I32)
        for place, one in zip(self.places, self._sums, strict=True):
            total = b.ir.load(one)
            total = total if self.vector == integers else b.ir.trunc(total, integers)
            scaled = b.ir.mul(b.of_all(factor, _LANES), total)
            value = b.ir.add(b.load(offset, b.ir.add(at, place), _LANES), scaled)
            b.ir.store(value, b.place(values, place, _LANES), align=4)


@contextmanager
def _elements(b: _Builder, at: ir.Value, rows: ir.Value, size: ir.Value, step: ir.Value) -> Iterator[tuple]:
    """Loop over `size` elements of each of some rows, `step` apart: the element's place, and its number among all."""
    with cgutils.for_range(b.ir, rows) as row, cgutils.for_range(b.ir, size) as column:
        place = b.ir.add(at, b.ir.add(b.ir.mul(row.index, step), column.index))
        yield place, b.ir.add(b.ir.mul(row.index, size), column.index)


_ARGUMENTS = "source at rows size step weight first stride offset begin factor values"


def counting(outputs: int, planes: int) -> Callable[..., Any]:
    """Return an intrinsic that counts the bits that differ between rows and a number of outputs, a multiple of 8.

    Called with source, at, rows, size, step, weight, first, stride, offset, begin, factor, values: `size` words of the
    source lie at `at`, and so many in each further row, `step` words on; plane p of a single row is p * size words on,
    and counts 2**p times. The words of weight that meet the n-th word begin at first + n * stride. Writes values[j] =
    offset[begin + j] + factor * count.
    """

    def build(b: _Builder) -> None:
        words, at, rows, size, step, weight, first, stride, offset, begin, factor, values = b.arguments
        sums = _Sums(b, _I64, outputs)
        kind = ir.FunctionType(sums.vector, [sums.vector])
        popcount = cgutils.get_or_insert_function(b.ir.module, kind, f"llvm.ctpop.v{_LANES}i64")
        with _elements(b, at, rows, size, step) as (place_of_word, number):
            place_of_weight = b.ir.add(first, b.ir.mul(number, stride))
            own = []
            for plane in range(planes):
                index = b.ir.add(place_of_word, b.ir.mul(size, ir.Constant(_I64, plane)))
                own.append(b.of_all(b.ir.load(b.ir.gep(words, [index])), _LANES))

            def counted(total: ir.Value, place: ir.Value) -> ir.Value:
                weights = b.load(weight, b.ir.add(place_of_weight, place), _LANES)
                for plane, word in enumerate(own):
                    count = b.ir.call(popcount, [b.ir.xor(word, weights)])
                    total = b.ir.add(total, b.ir.shl(count, ir.Constant(sums.vector, [plane] * _LANES)))
                return total

            sums.add(counted)
        sums.write(offset, begin, factor, values)

    return _intrinsic(types.void, _ARGUMENTS, build)


def summing(outputs: int) -> Callable[..., Any]:
    """Return an intrinsic that sums the rows of integer weights whose bits are set, of a number of outputs.

    Called as `counting` is, with words whose n-th bit has its weights at first + n * stride. Writes values[j] =
    offset[begin + j] + factor * sum.
    """

    def build(b: _Builder) -> None:
        words, at, rows, size, step, weight, first, stride, offset, begin, factor, values = b.arguments
        sums, zero = _Sums(b, _I32, outputs), ir.Constant(_I64, 0)
        left = cgutils.alloca_once(b.ir, _I64)
        with _elements(b, at, rows, size, step) as (place_of_word, number):
            b.ir.store(b.ir.load(b.ir.gep(words, [place_of_word])), left)
            test, body, end = (b.ir.append_basic_block(name) for name in ("test", "body", "end"))
            b.ir.branch(test)
            b.ir.position_at_end(test)
            word = b.ir.load(left)
            b.ir.cbranch(b.ir.icmp_unsigned("!=", word, zero), body, end)
            b.ir.position_at_end(body)
            bit = b.ir.cttz(word, ir.Constant(ir.IntType(1), 1))
            row = b.ir.add(b.ir.mul(number, ir.Constant(_I64, 64)), bit)
            place_of_weight = b.ir.add(first, b.ir.mul(row, stride))
            sums.add(lambda total, place: b.ir.add(total, b.load(weight, b.ir.add(place_of_weight, place), _LANES)))
            b.ir.store(b.ir.and_(word, b.ir.sub(word, ir.Constant(_I64, 1))), left)
            b.ir.branch(test)
            b.ir.position_at_end(end)
        sums.write(offset, begin, factor, values)

    return _intrinsic(types.void, _ARGUMENTS, build)


def weighing(outputs: int) -> Callable[..., Any]:
    """Return an intrinsic that multiplies levels by the integer weights of a number of outputs.

    Called as `counting` is, with levels, of which the n-th has its weights at first + n * stride. Writes values[j] =
    offset[begin + j] + factor * sum.
    """

    def build(b: _Builder) -> None:
        levels, at, rows, size, step, weight, first, stride, offset, begin, factor, values = b.arguments
        sums = _Sums(b, _I32, outputs)
        with _elements(b, at, rows, size, step) as (place_of_level, number):
            place_of_weight = b.ir.add(first, b.ir.mul(number, stride))
            level = b.of_all(b.ir.zext(b.ir.load(b.ir.gep(levels, [place_of_level])), _I32), _LANES)

            def weighed(total: ir.Value, place: ir.Value) -> ir.Value:
                return b.ir.add(total, b.ir.mul(level, b.load(weight, b.ir.add(place_of_weight, place), _LANES)))

            sums.add(weighed)
        sums.write(offset, begin, factor, values)

    return _intrinsic(types.void, _ARGUMENTS, build)


def _above(outputs: int) -> Callable[[_Builder], ir.Value]:
    def build(b: _Builder) -> ir.Value:
        values, first, thresholds, at = b.arguments
        word = ir.Constant(_I64, 0)
        for place in range(0, outputs, _LANES):  # as the values are written: larger loads would wait for the memory
            here, there = (b.ir.add(begin, ir.Constant(_I64, place)) for begin in (first, at))
            fires = b.ir.icmp_signed(">", b.load(values, here, _LANES), b.load(thresholds, there, _LANES))
            bits = b.ir.zext(b.ir.bitcast(fires, ir.IntType(_LANES)), _I64)
            word = b.ir.or_(word, b.ir.shl(bits, ir.Constant(_I64, place)))
        return word

    return build


def _above_shift(b: _Builder) -> ir.Value:
    values, first, shifts, at = b.arguments
    difference = b.ir.fsub(b.load(values, first, 16), b.load(shifts, at, 16))
    fires = b.ir.fcmp_ordered(">", difference, ir.Constant(ir.VectorType(_F32, 16), [0.0] * 16))
    return b.ir.zext(b.ir.bitcast(fires, ir.IntType(16)), _I64)


def _look_up(b: _Builder) -> None:
    values, begin, table, at, stride, out, first = b.arguments
    for j in range(16):
        value = b.ir.sext(b.ir.load(b.ir.gep(values, [b.ir.add(begin, ir.Constant(_I64, j))])), _I64)
        column = b.ir.add(at, ir.Constant(_I64, j))
        number = b.ir.load(b.ir.gep(table, [b.ir.add(column, b.ir.mul(value, stride))]))
        b.ir.store(number, b.ir.gep(out, [b.ir.add(first, ir.Constant(_I64, j))]))


above, above_16 = (_intrinsic(types.uint64, "values first thresholds at", _above(n)) for n in (64, 16))
"""above(values, first, thresholds, at): bits of 64 or 16 int32 from `first` that are greater than those from `at`."""
above_shift = _intrinsic(types.uint64, "values first shifts at", _above_shift)
"""above_shift(values, first, shifts, at): the bits of 16 float32 that are above 0 when a shift is taken from them."""
look_up = _intrinsic(types.void, "values begin table at stride out first", _look_up)
"""look_up(values, begin, table, at, stride, out, first): write table[at + j + stride * values[begin + j]], for 16 j."""
