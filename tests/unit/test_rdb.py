"""What reading an RDB once tells about it."""

from __future__ import annotations

import random

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._crc64 import crc64_bytewise
from ansible_collections.upkeep.ops.plugins.module_utils._rdb import (
    Rdb,
    RdbError,
    RdbReader,
    aux_fields,
    can_load,
    rdb_version,
    server_in_words,
    server_version_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def aux(name: bytes, value: bytes) -> bytes:
    return b"\xfa" + bytes((len(name),)) + name + bytes((len(value),)) + value


def rdb(
    payload: bytes = b"", *, magic: bytes = b"REDIS0010", writer: str = "redis-ver 7.0.15", checksum: bool = True
) -> bytes:
    """An RDB whose middle is arbitrary: only head, end mark and checksum are looked at."""
    body = magic + aux(*writer.encode().split()) + b"\xfa\x08used-mem\xc2" + (123456).to_bytes(4, "little")
    body += payload + b"\xff"
    return body + (crc64_bytewise(body) if checksum else 0).to_bytes(8, "little")


def read(data: bytes, *, piece: int = 1 << 20) -> Rdb:
    reader = RdbReader()
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
    return reader.finish()


PAYLOAD = b"\xfe\x00" + random.Random(3).randbytes(20_000)


def test_facts_of_a_sound_rdb() -> None:
    data = rdb(PAYLOAD)
    found = read(data)
    assert (found.version, found.bytes, found.redis_version, found.used_memory) == (10, len(data), "7.0.15", 123456)
    assert found.crc64 == f"{int.from_bytes(data[-8:], 'little'):016x}"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 12_000), st.integers(1, 9_000))
def test_the_size_of_the_pieces_does_not_matter(length: int, piece: int) -> None:
    data = rdb(random.Random(length).randbytes(length))
    assert read(data, piece=piece) == read(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(9, 20_000), st.integers(0, 7))
def test_each_flipped_bit_is_noticed(position: int, bit: int) -> None:
    data = bytearray(rdb(PAYLOAD))
    data[position % len(data)] ^= 1 << bit
    with pytest.raises(RdbError):
        read(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000))
def test_each_cut_is_noticed(missing: int) -> None:
    data = rdb(PAYLOAD)
    with pytest.raises(RdbError):
        read(data[: max(0, len(data) - missing)])


@pytest.mark.parametrize("surplus", [b"\n", b"\n" * 40, b"0123456789abcdef" * 200])
def test_what_follows_the_end_is_counted(surplus: bytes) -> None:
    with pytest.raises(RdbError, match=f"^{len(surplus)} bytes follow the end"):
        read(rdb(PAYLOAD) + surplus)


def test_a_long_tail_of_an_older_file_is_an_error() -> None:
    with pytest.raises(RdbError):
        read(rdb(PAYLOAD) + rdb(PAYLOAD)[-9000:])


def test_no_checksum_is_no_error_but_told() -> None:
    assert read(rdb(PAYLOAD, checksum=False)).crc64 is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip file", "no RDB"),
        (b"REDI", "no RDB"),
        (b"REDISx010", "no RDB"),
        (b"REDIS0003" + bytes(20), "older than 5"),
        (rdb(PAYLOAD)[:15_000], "cut short"),
    ],
)
def test_the_error_names_the_cause(data: bytes, words: str) -> None:
    with pytest.raises(RdbError, match=words):
        read(data)


def test_something_else_is_refused_at_its_first_byte() -> None:
    with pytest.raises(RdbError, match="no RDB"):
        RdbReader().feed(b"<")


def test_the_rdb_of_valkey_is_known() -> None:
    assert rdb_version(b"VALKEY080") == 80


@given(st.binary(max_size=200))
def test_no_garbage_breaks_the_aux_fields(garbage: bytes) -> None:
    assert isinstance(aux_fields(b"REDIS0010" + garbage), dict)


def test_aux_fields_with_a_long_value_and_after_the_data_began() -> None:
    long = b"\xfa\x01k" + bytes((0x40 | 1, 0x00)) + b"v" * 256
    assert aux_fields(b"REDIS0010" + long + b"\xfe\x00" + aux(b"late", b"x")) == {"k": "v" * 256}


@pytest.mark.parametrize(
    ("server", "version", "expected"),
    [
        ("7.0.15", 10, True),
        ("7.0.15", 11, False),
        ("7.2.4", 11, True),
        ("6.2.0", 9, True),
        ("6.2.0", 10, False),
        ("7.4.1", 12, True),
        ("8.0.2", 12, True),
        ("8.0.2", 13, False),
        ("8.2.0", 12, True),
        ("8.2.0", 13, None),
        ("7.0.15", 80, False),
        ("8.2.0", 80, False),
        ("unknown", 10, None),
        ("valkey 7.2.5", 11, True),
        ("valkey 8.1.1", 10, True),
        ("valkey 8.1.1", 12, False),
        ("valkey 8.1.1", 80, False),
        ("Valkey 9.0.0", 11, True),
        ("valkey 9.0.0", 12, False),
        ("valkey 9.0.0", 79, False),
        ("valkey 9.0.0", 80, True),
        ("valkey 9.0.0", 81, False),
        ("valkey 9.1.0", 81, None),
        ("valkey 9.1.0", 13, False),
    ],
)
def test_which_server_loads_which_version(server: str, version: int, expected: bool | None) -> None:
    assert can_load(server, version) is expected


def test_who_wrote_it_and_who_is_to_load_it_are_told_alike() -> None:
    written_by = read(rdb(magic=b"VALKEY080", writer="valkey-ver 9.0.0")).redis_version
    assert written_by == "valkey 9.0.0"
    assert can_load(written_by, 80)
    assert (
        server_version_of({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.0.0"}) == written_by
    )
    assert server_version_of({"redis_version": "7.0.15"}) == "7.0.15"
    assert [server_in_words(name) for name in ("7.0.15", "valkey 9.0.0", "")] == [
        "Redis 7.0.15",
        "Valkey 9.0.0",
        "a server of unknown version",
    ]
