"""CRC-64 as Redis computes it."""

from __future__ import annotations

import random

from ansible_collections.upkeep.ops.plugins.module_utils import _crc64
from ansible_collections.upkeep.ops.plugins.module_utils._crc64 import BLOCK, crc64, crc64_bytewise
from hypothesis import given, settings
from hypothesis import strategies as st

POLYNOMIAL = (1 << 64) | 0xAD93D23594C935A9


def test_the_check_value_of_redis() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


def test_each_sparse_multiple_is_a_multiple_of_the_polynomial() -> None:
    for exponents in _crc64._MULTIPLES:
        remainder = 0
        for exponent in exponents:
            remainder ^= _power_of_x(exponent)
        assert remainder == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300_000), st.integers(0, 2**64 - 1), st.integers(0, 2**32))
def test_folding_equals_the_table(length: int, register: int, seed: int) -> None:
    data = random.Random(seed).randbytes(length)
    assert crc64(data, register) == crc64_bytewise(data, register)


def test_folding_equals_the_table_around_a_block() -> None:
    data = random.Random(1).randbytes(BLOCK + 1)
    for length in (BLOCK - 1, BLOCK, BLOCK + 1):
        assert crc64(memoryview(data)[:length]) == crc64_bytewise(memoryview(data)[:length])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=8))
def test_pieces_give_the_same_as_the_whole(lengths: list[int]) -> None:
    source = random.Random(2)
    pieces = [source.randbytes(length) for length in lengths]
    crc = 0
    for piece in pieces:
        crc = crc64(piece, crc)
    assert crc == crc64_bytewise(b"".join(pieces))


def _power_of_x(exponent: int) -> int:
    """x to the power of ``exponent`` modulo the polynomial, by squaring."""
    result, base = 1, 2
    while exponent:
        if exponent & 1:
            result = _product(result, base)
        base = _product(base, base)
        exponent >>= 1
    return result


def _product(left: int, right: int) -> int:
    result = 0
    while right:
        if right & 1:
            result ^= left
        right >>= 1
        left <<= 1
        if left >> 64:
            left ^= POLYNOMIAL
    return result
