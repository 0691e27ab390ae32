"""Compressed streams, with the programs gzip and zstd as witnesses."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils import _compression
from ansible_collections.upkeep.ops.plugins.module_utils._compression import (
    CompressionError,
    checked_level,
    compressing,
    decompressing,
)

SOURCE = random.Random(4)
DATA = b"".join(SOURCE.randbytes(3000) + b"x" * 5000 for _ in range(400))
PROGRAMS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"], "none": ["cat"]}


def pack(path: Path, method: str) -> Path:
    with path.open("wb") as stream, compressing(stream, method, checked_level(method, None)) as writer:
        for start in range(0, len(DATA), 70_001):
            writer.write(DATA[start : start + 70_001])
    return path


def unpack(path: Path) -> bytes:
    with decompressing(str(path)) as pieces:
        return b"".join(pieces)


@pytest.fixture(params=["library", "program"])
def zstd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with the library, and once as on a host that has only the program."""
    if request.param == "program":
        monkeypatch.setattr(_compression, "_zstandard", lambda: None)
    return "zstd"


@pytest.mark.parametrize("method", ["gzip", "none"])
def test_the_programs_read_what_was_written(tmp_path: Path, method: str) -> None:
    packed = pack(tmp_path / "packed", method)
    assert subprocess.run([*PROGRAMS[method], packed], check=True, capture_output=True).stdout == DATA
    assert unpack(packed) == DATA


def test_zstd_reads_what_was_written(tmp_path: Path, zstd: str) -> None:
    packed = pack(tmp_path / "packed", zstd)
    assert subprocess.run([*PROGRAMS[zstd], packed], check=True, capture_output=True).stdout == DATA
    assert unpack(packed) == DATA


def test_a_flipped_byte_in_zstd_is_an_error(tmp_path: Path, zstd: str) -> None:
    packed = pack(tmp_path / "packed", zstd)
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 0x10
    packed.write_bytes(content)
    with pytest.raises(CompressionError):
        unpack(packed)


@pytest.mark.parametrize("fault", ["cut", "flip", "surplus"])
def test_damage_in_gzip_is_an_error(tmp_path: Path, fault: str) -> None:
    packed = pack(tmp_path / "packed", "gzip")
    content = bytearray(packed.read_bytes())
    if fault == "cut":
        del content[len(content) // 2 :]
    elif fault == "flip":
        content[len(content) // 2] ^= 0x10
    else:
        content += b"not gzip"
    packed.write_bytes(content)
    with pytest.raises(CompressionError, match="damaged or cut short"):
        unpack(packed)


def test_a_full_disk_is_told_as_such(zstd: str) -> None:
    with (
        pytest.raises(OSError, match="No space left"),
        Path("/dev/full").open("wb", buffering=0) as full,
        compressing(full, zstd, 3) as writer,
    ):
        writer.write(SOURCE.randbytes(4 << 20))


def test_without_zstd_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compression, "_zstandard", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CompressionError, match="compression: gzip"):
        checked_level("zstd", None)


@pytest.mark.parametrize(("method", "level"), [("zstd", 0), ("zstd", 23), ("gzip", 10), ("none", 1)])
def test_a_level_that_does_not_exist(method: str, level: int) -> None:
    with pytest.raises(CompressionError, match=f"no level {level}"):
        checked_level(method, level)
