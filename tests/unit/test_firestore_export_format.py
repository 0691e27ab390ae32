# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of exports: what was written is read, and no damage goes unseen. The emulator's own exports are read
in tests/modules/test_firestore_export.py."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    ExportFormatError,
    document_path,
    entities,
    folder_opener,
    format_path,
    metadata_name,
    read_metadata,
    read_part,
    records,
    verify_export,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.platform.parts.export_writer import document, write_export, write_log

NAME = "nightly/main/main.overall_export_metadata"
BLOCK = 32768

GROUPS = {
    # More than two blocks, so that records are cut, with subcollections and names that are no ASCII.
    "users": [document([("users", f"ü{number}")], bytes(range(250)) * 4) for number in range(80)],
    "orders": [document([("users", "ü1"), ("orders", f"{number}")]) for number in range(7)],
    "empty": [],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bucket of a good export; not to be changed."""
    root = tmp_path_factory.mktemp("bucket")
    write_export(root / "nightly" / "main", GROUPS)
    return root


@pytest.fixture
def damaged(good: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(good, tmp_path / "bucket"))


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_good_export_is_counted(good: Path) -> None:
    summary = verify_export(folder_opener(str(good)), NAME)
    assert summary.collections == {"orders": 7, "users": 80}
    assert summary.documents == 87
    assert summary.outputs == 6
    assert summary.bytes == sum(path.stat().st_size for path in files(good) if path.name.startswith("output-"))


def test_the_metadata_alone(good: Path) -> None:
    read = folder_opener(str(good))
    metadata = read_metadata(read, NAME)
    assert metadata.collections == {"empty": 0, "orders": 7, "users": 80}
    assert (metadata.documents, metadata.bytes) == (87, verify_export(read, NAME).bytes)
    part = read_part(read, metadata.parts[0])
    assert part.outputs == tuple(f"nightly/main/all_namespaces/kind_users/output-{number}" for number in (0, 1))
    assert part.started_at <= part.ended_at
    assert sorted(entities(read, part.outputs)) == sorted(GROUPS["users"])


def test_names() -> None:
    assert metadata_name("nightly/main/") == NAME
    assert metadata_name("main") == "main/main.overall_export_metadata"
    path = (("users", "ü1"), ("orders", "7"))
    assert document_path(document(path), "output-0") == path
    assert format_path(path) == "users/ü1/orders/7"


def test_numeric_ids() -> None:
    """Firestore in Datastore mode numbers its entities."""
    element = b"\x0b" + b"\x12\x04Task" + b"\x18\x2a" + b"\x0c"
    path = b"\x72" + bytes([len(element)]) + element
    assert document_path(b"\x6a" + bytes([len(path)]) + path, "output-0") == (("Task", "__id42__"),)


@pytest.mark.parametrize("number", range(7))
def test_a_missing_file_is_named(damaged: Path, number: int) -> None:
    gone = files(damaged)[number]
    gone.unlink()
    with pytest.raises(ExportFormatError, match="missing") as failure:
        verify_export(folder_opener(str(damaged)), NAME)
    assert gone.relative_to(damaged).as_posix() in str(failure.value)


def test_a_document_that_is_there_twice(damaged: Path) -> None:
    part = damaged / "nightly/main/all_namespaces/kind_users"
    shutil.copy(part / "output-0", part / "output-1")
    with pytest.raises(ExportFormatError, match="users/ü0 is in the export twice"):
        verify_export(folder_opener(str(damaged)), NAME)


def test_a_file_that_was_cut_on_a_record_is_found_by_the_counts(damaged: Path) -> None:
    """No CRC is wrong then, and no record is torn."""
    output = damaged / "nightly/main/all_namespaces/kind_orders/output-0"
    write_log(output, GROUPS["orders"][0:4:2])
    with pytest.raises(ExportFormatError, match="lists 7 documents of orders, its output files hold 5"):
        verify_export(folder_opener(str(damaged)), NAME)


def test_a_file_that_grew_is_found_by_its_size(damaged: Path) -> None:
    output = damaged / "nightly/main/all_namespaces/kind_empty/output-0"
    output.write_bytes(bytes(BLOCK))
    with pytest.raises(ExportFormatError, match=f"lists 0 bytes of empty, its output files hold {BLOCK}"):
        verify_export(folder_opener(str(damaged)), NAME)


def test_another_format_is_refused(damaged: Path) -> None:
    write_log(damaged / NAME, [b"4"])
    with pytest.raises(ExportFormatError, match="no overall metadata of format 3"):
        verify_export(folder_opener(str(damaged)), NAME)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_goes_unseen(good: Path, data: st.DataObject) -> None:
    """One flipped bit, or a cut at any byte, in any output file or in the overall metadata."""
    checked = [path for path in files(good) if path.suffix != ".export_metadata" and path.stat().st_size]
    victim = data.draw(st.sampled_from(checked), "file")
    content = bytearray(victim.read_bytes())
    if data.draw(st.booleans(), "flip"):
        content[data.draw(st.integers(0, len(content) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    else:
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]

    def read(name: str) -> io.BytesIO:
        path = good / name
        return io.BytesIO(bytes(content) if path == victim else path.read_bytes())

    if victim == good / NAME and bytes(content) == victim.read_bytes()[: 7 + 1]:
        return  # cut behind its first record the metadata is that of an export of nothing
    with pytest.raises(ExportFormatError):
        verify_export(read, NAME)


def logs() -> st.SearchStrategy[list[bytes]]:
    """Lists of records, many of them about as long as what is left of a block."""
    about = [number for edge in (0, BLOCK - 7, BLOCK, 2 * BLOCK) for number in range(max(edge - 20, 0), edge + 20)]
    return st.lists(st.one_of(st.binary(max_size=50), st.sampled_from(about).map(bytes)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(written=logs())
@example(written=[bytes(BLOCK - 7 - size) for size in range(8)])
@example(written=[b""] * 5000)
def test_every_log_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, written: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "output-0"
    write_log(path, written)
    with path.open("rb") as stream:
        assert list(records(stream, "output-0")) == written


def test_a_log_that_ends_between_the_fragments_of_a_record(tmp_path: Path) -> None:
    write_log(tmp_path / "output-0", [b"whole", bytes(3 * BLOCK)])
    start = io.BytesIO((tmp_path / "output-0").read_bytes()[: 2 * BLOCK])
    with pytest.raises(ExportFormatError, match="ends in the middle of a record"):
        list(records(start, "output-0"))


class Dripping(io.BytesIO):
    """A stream that gives less than it is asked for, as those of the network may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1000))


def test_a_dripping_stream(good: Path) -> None:
    content = (good / "nightly/main/all_namespaces/kind_users/output-0").read_bytes()
    assert list(records(Dripping(content), "output-0")) == GROUPS["users"][0::2]


def anything() -> Iterator[st.SearchStrategy[bytes]]:
    """Bytes that are no export at all, and messages that begin well."""
    yield st.binary(max_size=300)
    yield st.binary(max_size=60).map(lambda rest: GROUPS["orders"][0][:-2] + rest)


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(*anything()))
def test_nonsense_is_an_error_that_names_the_file(content: bytes) -> None:
    try:
        document_path(content, "output-7")
    except ExportFormatError as error:
        assert "output-7" in str(error)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(min_size=1, max_size=200))
def test_a_part_of_nonsense(good: Path, content: bytes) -> None:
    """The metadata of a part carries no checksum: what it says is still proved by what is there."""
    part = read_metadata(folder_opener(str(good)), NAME).parts[0]

    def read(name: str) -> io.BytesIO:
        return io.BytesIO(content if name == part.metadata_name else (good / name).read_bytes())

    with pytest.raises(ExportFormatError):
        verify_export(read, NAME)
