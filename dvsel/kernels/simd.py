"""Vector primitives for numba kernels: 64 bytes of a buffer in, a 64-bit mask out.

numba compiles byte loops one byte at a time; text kernels need to look at a vector of bytes at once. These
intrinsics are plain LLVM vector instructions, so LLVM lowers them to whatever the machine has (AVX-512, AVX2,
SSE2, NEON) with the same result. Bit i of a mask speaks of byte `index + i`. Nothing is checked: the buffer must
reach `index + WIDTH` (see `columns.PAD`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 64

_BYTE = ir.IntType(8)
_VECTOR = ir.VectorType(_BYTE, WIDTH)
_LANES = ir.VectorType(ir.IntType(32), WIDTH)
_MASK = ir.IntType(WIDTH)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, to: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, of: Any) -> Any:
    loaded = builder.load(_pointer(context, builder, array_type, array, index, of), typ=of)
    # LLVM would rely on the type's own alignment, and any byte may be the first.
    loaded.align = 1
    return loaded


def _splat(builder: Any, byte: Any) -> Any:
    # LLVM's way to spell a broadcast: one lane is set, and the shuffle copies it to all.
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, byte, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_LANES, [0] * WIDTH))


def _in_range(builder: Any, vector: Any, first: Any, last: Any) -> Any:
    # One unsigned comparison in place of two: bytes below `first` wrap round to large numbers.
    shifted = builder.sub(vector, _splat(builder, first))
    return builder.icmp_unsigned("<=", shifted, _splat(builder, builder.sub(last, first)))


def _comparison(operator: str, doc: str) -> Any:
    def compare(typingctx: Any, array: Any, index: Any, byte: Any) -> Any:  # noqa: ARG001
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            loaded = _load(context, builder, signature.args[0], args[0], args[1], _VECTOR)
            hit = builder.icmp_unsigned(operator, loaded, _splat(builder, args[2]))
            return builder.bitcast(hit, _MASK)

        return types.uint64(array, types.intp, types.uint8), codegen

    compare.__doc__ = doc
    return intrinsic(compare)


equal = _comparison("==", "equal(buffer, index, byte) -> uint64: a mask of those of the 64 bytes that are `byte`.")
below = _comparison("<", "below(buffer, index, byte) -> uint64: a mask of those that are less than `byte`, unsigned.")


@intrinsic
def copy(typingctx: Any, target: Any, at: Any, source: Any, index: Any) -> Any:  # noqa: ARG001
    """copy(target, at, source, index): the 64 bytes at source[index] to target[at]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = _load(context, builder, signature.args[2], args[2], args[3], _VECTOR)
        stored = builder.store(loaded, _pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


@intrinsic
def within(typingctx: Any, array: Any, index: Any, first: Any, last: Any) -> Any:  # noqa: ARG001
    """within(buffer, index, first, last) -> uint64: a mask of those of the 64 bytes in first..last, unsigned."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = _load(context, builder, signature.args[0], args[0], args[1], _VECTOR)
        return builder.bitcast(_in_range(builder, loaded, args[2], args[3]), _MASK)

    return types.uint64(array, types.intp, types.uint8, types.uint8), codegen


@intrinsic
def copy_lowered(typingctx: Any, target: Any, at: Any, source: Any, index: Any) -> Any:  # noqa: ARG001
    """copy_lowered(target, at, source, index): as `copy`, with A-Z made a-z."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = _load(context, builder, signature.args[2], args[2], args[3], _VECTOR)
        upper = _in_range(builder, loaded, ir.Constant(_BYTE, ord("A")), ir.Constant(_BYTE, ord("Z")))
        lowered = builder.or_(loaded, _splat(builder, ir.Constant(_BYTE, 0x20)))
        stored = builder.store(
            builder.select(upper, lowered, loaded),
            _pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR),
        )
        stored.align = 1
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


@intrinsic
def load64(typingctx: Any, buffer: Any, index: Any) -> Any:  # noqa: ARG001
    """load64(buffer, index) -> uint64: the 8 bytes at buffer[index], lowest first on a little-endian machine."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(context, builder, signature.args[0], args[0], args[1], ir.IntType(64))

    return types.uint64(buffer, types.intp), codegen


@intrinsic
def trailing_zeros(typingctx: Any, mask: Any) -> Any:  # noqa: ARG001
    """trailing_zeros(mask) -> int64: the index of the lowest set bit, 64 for no bit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        # 0: the result is defined (64) for a mask of zero too, on which loops over masks rely.
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def count_ones(typingctx: Any, mask: Any) -> Any:  # noqa: ARG001
    """count_ones(mask) -> int64: the number of set bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def multiply_high(typingctx: Any, one: Any, other: Any) -> Any:  # noqa: ARG001
    """multiply_high(one, other) -> uint64: the upper 64 of the 128 bits of their product."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """prefetch(array, index): ask for the cache line of array[index], without waiting for it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], _BYTE)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer.type], ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        )
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, to stay in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen
