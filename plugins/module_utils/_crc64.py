# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRC-64 as Redis writes it at the end of an RDB (Jones polynomial, reflected, no initial value, no final XOR).

Python has no CRC-64, and a table that is walked byte by byte manages some 12 MB/s. Here a block is one big integer
that is folded with a few shifts and XORs, at some hundred MB/s. The idea: a multiple Q of the polynomial P with few
terms, x^d + x^e + ... + 1, says that modulo P each x^d may be replaced by x^e + ... + 1, which are lower powers. In
GF(2)[x] squaring is linear, so Q(x^2), Q(x^4) ... are multiples with as few terms: there is a fitting one for every
length. What is left after folding, some hundred bytes, goes through the table.
"""

from __future__ import annotations

from typing import Union

Data = Union[bytes, bytearray, memoryview]

#: Bytes that :func:`crc64` folds at once; the best of the sizes tried between 2 KiB and 16 MiB.
BLOCK = 178620 * 8

_POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xad93d23594c935a9 reflected
#: Exponents of two sparse multiples of the polynomial, highest first; the tests prove that they are multiples.
_MULTIPLES = (
    (884782, 340607, 126634, 92213, 0),
    (2553, 1532, 1514, 1295, 1276, 1096, 564, 407, 0),
)
_SHORT = 1024  # bytes below which folding is not worth its overhead


def crc64(data: Data, crc: int = 0) -> int:
    """The checksum of ``data`` that follows data whose checksum is ``crc``."""
    view = memoryview(data)
    for start in range(0, len(view), BLOCK):
        block = view[start : start + BLOCK]
        if len(block) < _SHORT:
            crc = crc64_bytewise(block, crc)
        else:
            # A register of this CRC is the same as its bits XORed onto the first bits of what follows.
            folded, bits = _fold(int.from_bytes(block, "little") ^ crc, len(block) * 8)
            crc = crc64_bytewise(folded.to_bytes(bits // 8, "little"))
    return crc


def crc64_bytewise(data: Data, crc: int = 0) -> int:
    """The same, byte by byte through a table: slow, for short data."""
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc


def _fold(value: int, bits: int) -> tuple[int, int]:
    """A shorter polynomial with the same remainder, as (value, number of bits, a multiple of 8).

    Bit 0 is the coefficient of the highest power, as in reflected CRCs: shifting left is lowering powers.
    """
    for degree, *exponents in _MULTIPLES:
        gap = degree - exponents[0]
        while bits > degree + degree // 4:
            doublings = _doublings(bits, degree, gap)
            # So many of the highest powers can be replaced at once without meeting themselves again.
            count = min(gap << doublings, bits - (degree << doublings)) & ~7
            if count <= 0:
                break
            highest = value & ((1 << count) - 1)
            value >>= count
            for exponent in exponents:
                value ^= highest << (((degree - exponent) << doublings) - count)
            bits -= count
    return value, bits


def _doublings(bits: int, degree: int, gap: int) -> int:
    """How often to square the multiple so that one step shortens ``bits`` bits by as much as possible."""
    doublings = ((bits - 1) // degree).bit_length() - 1
    while doublings and bits - (degree << doublings) < (gap << doublings) >> 1:
        doublings -= 1
    return doublings


def _table_entry(byte: int) -> int:
    for _bit in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_table_entry(byte) for byte in range(256))
