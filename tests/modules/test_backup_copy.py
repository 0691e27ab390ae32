"""Copies of backup sets in a bucket, over a real sshd and in a folder, held against age and sha256sum."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_examples
from tests.harness import run_module, start_module
from tests.platform.parts.bucket import Bucket, storage
from tests.platform.parts.fault_proxy import FaultProxy
from tests.platform.parts.process import free_port
from tests.platform.parts.sshd import SshServer, make_key

BUCKET = "offsite"
RDB = os.urandom(3_000_000)
PARTS = [
    {"name": "redis:cache", "path": "redis/cache.rdb"},
    {"name": "firestore:main", "path": "firestore/main.json", "record": {"documents": 5}},
]
FINDINGS = [
    {"check": "snapshot_load", "subject": "redis:cache", "status": "ok", "summary": "loaded"},
    {"check": "export_format", "subject": "firestore:main", "status": "ok", "summary": "read back"},
]


def make_set(root: Path, verified: bool = True) -> str:
    """Id of a new set."""
    opened = run_module("backup_set", {"root": str(root), "state": "open", "owner": "maker"})
    identifier = str(opened["set"]["id"])
    (Path(opened["set"]["path"]) / "redis/cache.rdb").write_bytes(RDB)
    arguments = {"root": str(root), "owner": "maker", "id": identifier, "parts": PARTS, "site": "test"}
    run_module("backup_set", {**arguments, "state": "complete"})
    if verified:
        judged = {"state": "judged", "id": identifier, "level": 2, "findings": FINDINGS}
        assert run_module("backup_set", {"root": str(root), **judged})["set"]["state"] == "verified"
    return identifier


@dataclass
class Offsite:
    """A root with a verified set, and a place for copies with the means to look at it and to spoil it."""

    root: Path
    identifier: str
    destination: str
    options: dict[str, Any]
    listing: Callable[[], dict[str, bytes]]
    put: Callable[[str, bytes | None], None]
    recipients: list[str] = field(default_factory=list)

    def run(self, state: str = "present", *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("backup_copy", self.arguments(state=state, **options), check=check, diff=True)

    def arguments(self, **options: Any) -> dict[str, Any]:
        common = {"root": str(self.root), "destination": self.destination, "recipients": self.recipients}
        return {**common, "timeout": 20, **self.options, **options}

    def finding(self, check: str, **options: Any) -> dict[str, Any]:
        found = self.run("checked", fail_on="never", name="offsite", **options)["findings"]
        (only,) = [each for each in found if each["check"] == check]
        return dict(only)

    def copies(self) -> set[str]:
        """Ids under whose final names something lies that has a record."""
        names = {name.split("/")[0] for name in self.listing() if name.endswith("/copy.json")}
        return {name for name in names if not name.endswith(".partial")}

    def local(self) -> dict[str, bytes]:
        folder = self.root / self.identifier
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("pristine") / "sets"
    return root, make_set(root)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with SshServer(tmp_path_factory.mktemp("sshd"), free_port()) as server:
        yield server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    server = Bucket(tmp_path_factory.mktemp("bucket"), free_port(), BUCKET)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file with the owner's private key, which the module never sees, and the public key."""
    path = tmp_path_factory.mktemp("identity") / "key.txt"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    return path, subprocess.run(
        ["age-keygen", "-y", str(path)], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def root(tmp_path: Path, pristine: tuple[Path, str]) -> Path:
    return Path(shutil.copytree(pristine[0], tmp_path / "sets"))


@pytest.fixture
def in_folder(tmp_path: Path, root: Path, pristine: tuple[Path, str]) -> Offsite:
    (tmp_path / "disk").mkdir()
    return _offsite_of_files(tmp_path / "disk", root, pristine[1], str(tmp_path / "disk"), {})


@pytest.fixture
def over_ssh(tmp_path: Path, root: Path, pristine: tuple[Path, str], sshd: SshServer) -> Offsite:
    folder = tmp_path / "far away"
    folder.mkdir()
    options = {"ssh_key_file": str(sshd.key), "ssh_known_hosts_file": str(sshd.known_hosts)}
    return _offsite_of_files(folder, root, pristine[1], sshd.url(folder), options)


def _offsite_of_files(folder: Path, root: Path, identifier: str, destination: str, options: dict[str, Any]) -> Offsite:
    def listing() -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def put(name: str, content: bytes | None) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return Offsite(root, identifier, destination, options, listing, put)


@pytest.fixture
def in_bucket(tmp_path: Path, root: Path, pristine: tuple[Path, str], bucket: Bucket) -> Offsite:
    prefix = f"{tmp_path.name}/copies/"

    def listing() -> dict[str, bytes]:
        with storage(bucket.url) as cloud:
            names = [blob.name for blob in cloud.list_blobs(BUCKET, prefix=prefix)]
            # Not by the objects of the list: the stand-in keeps in them the address of the proxy they came by.
            return {name.removeprefix(prefix): cloud.bucket(BUCKET).blob(name).download_as_bytes() for name in names}

    def put(name: str, content: bytes | None) -> None:
        with storage(bucket.url) as cloud:
            blob = cloud.bucket(BUCKET).blob(prefix + name)
            blob.delete() if content is None else blob.upload_from_string(content)

    destination = f"gs://{BUCKET}/{prefix}"
    return Offsite(root, pristine[1], destination, {"storage_endpoint": bucket.url}, listing, put)


@pytest.fixture(params=["in_folder", "over_ssh", "in_bucket"])
def offsite(request: pytest.FixtureRequest) -> Offsite:
    """A place of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["in_folder", "over_ssh", "in_bucket"])
def some(request: pytest.FixtureRequest, identity: tuple[Path, str]) -> Offsite:
    """A place of each kind, one of them without encryption."""
    chosen: Offsite = request.getfixturevalue(request.param)
    chosen.recipients = [] if request.param == "over_ssh" else [identity[1]]
    return chosen


# --- made, kept, checked, removed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsite", "sealed"),
    [("in_folder", False), ("over_ssh", True), ("in_bucket", False), ("in_bucket", True)],
    indirect=["offsite"],
)
def test_a_copy_is_made_once_and_holds_the_set(
    offsite: Offsite, sealed: bool, identity: tuple[Path, str], tmp_path: Path
) -> None:
    offsite.recipients = [identity[1]] if sealed else []
    local = offsite.local()
    foretold = offsite.run(check=True)
    assert foretold["changed"] and foretold["copy"] is None and offsite.listing() == {}
    assert foretold["diff"] == {"before": {"copies": []}, "after": {"copies": [offsite.identifier]}}
    made = offsite.run()
    assert made["changed"] and not made["failed"] and made["reason"] == "there was no whole copy", made
    assert made["copy"]["state"] == "whole" and made["copy"]["encrypted"] == bool(offsite.recipients)
    _assert_copy_is_the_set(offsite, identity[0], tmp_path / "fetched")
    for check in (False, True):
        again = offsite.run(check=check)
        assert not again["changed"] and again["msg"].endswith("is good") and again["reason"] == ""
    assert offsite.local() == local, "nothing is changed in the set"
    assert not list(offsite.root.glob(".copy/"))
    checked = offsite.run("checked", max_age="26h", name="offsite")
    assert checked["status"] == "ok" and [each["id"] for each in checked["copies"]] == [offsite.identifier]


def _assert_copy_is_the_set(offsite: Offsite, key: Path, fetched: Path) -> None:
    """Fetched and decrypted with the owner's key as the README says, it passes the sums of its own manifest."""
    objects = {name.split("/", 1)[1]: content for name, content in offsite.listing().items()}
    record = json.loads(objects.pop("copy.json"))
    assert {name: hashlib.sha256(content).hexdigest() for name, content in objects.items()} == {
        name: entry["sha256"] for name, entry in record["files"].items()
    }
    for name, content in objects.items():
        path = fetched / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if offsite.recipients:
            assert name.endswith(".age") and content.startswith(b"age-encryption.org/v1\n")
            subprocess.run(["age", "-d", "-i", key, "-o", path.with_suffix(""), path], check=True)
            path.unlink()
    there = {str(path.relative_to(fetched)): path.read_bytes() for path in fetched.rglob("*") if path.is_file()}
    assert there == offsite.local()
    subprocess.run(["sha256sum", "-c", "manifest.json.sha256"], cwd=fetched, check=True, stdout=subprocess.DEVNULL)


def test_a_flipped_byte_is_found_and_the_copy_made_anew(some: Offsite) -> None:
    some.run()
    (name,) = [name for name in some.listing() if "cache.rdb" in name]
    content = bytearray(some.listing()[name])
    content[len(content) // 2] ^= 1
    some.put(name, bytes(content))
    bad = some.finding("backup_copy_bytes", max_age="26h")
    assert bad["status"] == "critical" and "cache.rdb" in bad["summary"] and "another sha256" in bad["summary"]
    assert some.finding("backup_copy_age")["summary"].startswith("there is no good copy")
    assert some.finding("backup_copy_bytes", read_back=False)["status"] == "ok", "names and sizes are the same"
    mended = some.run()
    assert mended["changed"] and mended["reason"].startswith("the copy was damaged") and "cache.rdb" in mended["reason"]
    assert some.run("checked")["status"] == "ok"


@pytest.mark.parametrize("offsite", ["in_folder", "in_bucket"], indirect=True)
def test_what_is_missing_incomplete_or_foreign_is_told(offsite: Offsite) -> None:
    offsite.run()
    offsite.put(f"{offsite.identifier}/firestore/main.json", None)
    offsite.put("20200101T000000Z/main/output-0", b"of an export")
    offsite.put("notes.txt", b"foreign")
    told = offsite.finding("backup_copy_bytes")
    assert told["status"] == "critical" and "firestore/main.json is missing" in told["summary"]
    foreign = offsite.finding("backup_copy_leftovers")
    assert foreign["status"] == "warning"
    assert "20200101T000000Z/" in foreign["summary"] and "notes.txt" in foreign["summary"]
    offsite.run()
    there = offsite.listing()
    assert there["notes.txt"] == b"foreign" and there["20200101T000000Z/main/output-0"] == b"of an export"
    assert offsite.copies() == {offsite.identifier}
    offsite.put(f"{offsite.identifier}/of-somebody-else", b"x")
    refused = offsite.run()
    assert refused["failed"] and "of-somebody-else lies where the copy belongs" in refused["msg"]


@pytest.mark.parametrize("offsite", ["in_folder", "in_bucket"], indirect=True)
def test_other_recipients_get_a_copy_of_their_own(offsite: Offsite, identity: tuple[Path, str], tmp_path: Path) -> None:
    offsite.run()
    offsite.recipients = [identity[1]]
    made = offsite.run()
    assert made["reason"] == "the copy was encrypted to other recipients, or not at all"
    _assert_copy_is_the_set(offsite, identity[0], tmp_path / "fetched")


@pytest.mark.parametrize("offsite", ["in_folder", "in_bucket"], indirect=True)
def test_copies_of_removed_sets_go_when_asked_and_never_the_newest_good_one(offsite: Offsite) -> None:
    offsite.run()
    old = "20200131T030000Z"
    for name, content in offsite.listing().items():
        text = content.replace(offsite.identifier.encode(), old.encode()) if name.endswith("copy.json") else content
        offsite.put(name.replace(offsite.identifier, old), text)
    assert not offsite.run()["changed"] and offsite.copies() == {offsite.identifier, old}
    foretold = offsite.run(check=True, prune_after="30d")
    assert foretold["removed"] == [old] and len(offsite.copies()) == 2
    assert offsite.run(prune_after="30d")["removed"] == [old] and offsite.copies() == {offsite.identifier}
    newer = make_set(offsite.root)
    assert offsite.run()["copy"]["id"] == newer
    aside = (offsite.root / newer).rename(offsite.root / "aside")
    assert offsite.run(prune_after="0s")["removed"] == [], "the newest good one stays, whatever became of its set"
    aside.rename(offsite.root / newer)
    shutil.rmtree(offsite.root / offsite.identifier)
    assert offsite.run(prune_after="0s")["removed"] == [offsite.identifier]
    assert "newest good one" in offsite.run("absent", id=newer)["msg"]
    assert offsite.run("absent", id=newer, force=True, check=True)["changed"] and offsite.copies() == {newer}
    assert offsite.run("absent", id=newer, force=True)["removed"] == [newer] and offsite.listing() == {}
    assert not offsite.run("absent", id=newer)["changed"]
    none = offsite.run("checked")
    assert none["failed"] and "there is no good copy at" in none["msg"]


def test_an_old_copy_is_critical(in_folder: Offsite) -> None:
    in_folder.run()
    old = in_folder.finding("backup_copy_age", max_age="0s")
    assert old["status"] == "critical" and in_folder.identifier in old["summary"] and old["subject"] == "offsite"


def test_only_verified_sets_are_copied(in_folder: Offsite) -> None:
    newer = make_set(in_folder.root, verified=False)
    assert in_folder.run()["copy"]["id"] == in_folder.identifier
    assert f"set {newer} is complete and not verified" in in_folder.run(id=newer)["msg"]
    assert "no set 20200101T000000Z" in in_folder.run(id="20200101T000000Z")["msg"]
    shutil.rmtree(in_folder.root / in_folder.identifier)
    assert "there is no verified set below" in in_folder.run()["msg"]


def test_a_set_that_is_damaged_here_makes_no_copy(in_folder: Offsite) -> None:
    path = in_folder.root / in_folder.identifier / "redis/cache.rdb"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    told = in_folder.run()
    assert told["failed"] and "is not what the manifest says any more" in told["msg"] and in_folder.copies() == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipients": ["AGE-SECRET-KEY-1QQQ"]}, "recipients holds a private key"),
        ({"recipients": ["age1nonsense"]}, "age failed: .*malformed recipient"),
        ({"recipients": ["me"]}, "'me', which is no public key"),
        ({"destination": "somewhere"}, "give gs://bucket/folder, ssh://user@host/folder or /folder"),
        ({"destination": "ssh://host"}, "is no address such as ssh://"),
        ({"destination": "gs://bucket"}, "is no address such as gs://"),
        ({"destination": "/nowhere/at/all"}, "there is no such folder; mount it"),
        ({"max_age": "soon", "state": "checked"}, "'soon' is no duration"),
        ({"root": "/nowhere"}, "/nowhere is no folder"),
        ({"destination": "{root}/copies"}, "lie in each other"),
    ],
)
def test_errors_name_the_cause(in_folder: Offsite, options: dict[str, Any], message: str) -> None:
    given = {
        name: value.format(root=in_folder.root) if name == "destination" else value for name, value in options.items()
    }
    answer = run_module("backup_copy", in_folder.arguments(**given))
    assert answer["failed"] and re.search(message, answer["msg"]), answer
    assert "QQQ" not in answer["msg"]


# --- faults ----------------------------------------------------------------------------------------------------------


def _assert_nothing_lost_and_clean_again(offsite: Offsite, local: dict[str, bytes]) -> None:
    """No copy counts, the set is untouched, and the next run makes a good one and leaves nothing else."""
    assert offsite.copies() == set() and offsite.local() == local
    again = offsite.run()
    assert again["changed"] and not again["failed"], again
    assert {each["status"] for each in offsite.run("checked")["findings"]} == {"ok"}
    assert offsite.copies() == {offsite.identifier} and not list(offsite.root.glob(".copy/"))


@pytest.mark.parametrize("after", [20_000, 1_500_000])
def test_a_link_that_is_cut(over_ssh: Offsite, sshd: SshServer, after: int, tmp_path: Path) -> None:
    """While it is written, and while it is read back."""
    local = over_ssh.local()
    with FaultProxy(sshd.port, "cut", after) as proxy:
        known = tmp_path / "known"
        known.write_text(sshd.known_at(proxy.port))
        destination = over_ssh.destination.replace(str(sshd.port), str(proxy.port), 1)
        cut = over_ssh.run(destination=destination, ssh_known_hosts_file=str(known))
    assert cut["failed"] and "the link was cut" in cut["msg"], cut
    _assert_nothing_lost_and_clean_again(over_ssh, local)


def test_a_bucket_whose_link_is_cut_or_that_hangs_or_is_away(in_bucket: Offsite, bucket: Bucket) -> None:
    local = in_bucket.local()
    with FaultProxy(bucket.port, "hang", 300) as proxy:
        hanging = in_bucket.run(storage_endpoint=f"http://127.0.0.1:{proxy.port}", timeout=0.5)
    assert hanging["failed"] and f"127.0.0.1:{proxy.port}" in hanging["msg"], hanging
    nowhere = f"http://127.0.0.1:{free_port()}"
    away = in_bucket.run(storage_endpoint=nowhere, timeout=0.5)
    assert away["failed"] and "Connection refused" in away["msg"], away
    unknown = in_bucket.finding("backup_copy_age", storage_endpoint=nowhere, timeout=0.5)
    assert unknown["status"] == "unknown" and "Connection refused" in unknown["summary"]
    missing = in_bucket.run(destination="gs://no-such-bucket/copies")
    assert missing["failed"] and "there is no such bucket" in missing["msg"]
    with FaultProxy(bucket.port, "cut", 1_500_000) as proxy:  # while it is read back
        cut = in_bucket.run(storage_endpoint=f"http://127.0.0.1:{proxy.port}", timeout=0.5)
    assert cut["failed"] and f"127.0.0.1:{proxy.port}" in cut["msg"], cut
    _assert_nothing_lost_and_clean_again(in_bucket, local)


def test_who_is_not_let_in_and_a_host_that_is_another_one(over_ssh: Offsite, sshd: SshServer, tmp_path: Path) -> None:
    local = over_ssh.local()
    make_key(tmp_path / "wrong")
    assert "it does not let this user in" in over_ssh.run(ssh_key_file=str(tmp_path / "wrong"))["msg"]
    other = tmp_path / "other"
    other.write_text(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'wrong.pub').read_text()}")
    changed = over_ssh.run(ssh_known_hosts_file=str(other))
    assert "its host key is not the one that is known" in changed["msg"], changed
    other.write_text("")
    assert "its host key is not known here" in over_ssh.run(ssh_known_hosts_file=str(other))["msg"]
    nobody = over_ssh.run(destination=over_ssh.destination.replace(str(sshd.port), str(free_port()), 1))
    assert "nothing listens there: does sshd run" in nobody["msg"]
    gone = over_ssh.run(destination=f"{over_ssh.destination}/not-mounted")
    assert "there is no such folder; mount it" in gone["msg"]
    _assert_nothing_lost_and_clean_again(over_ssh, local)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB: less than a set."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs takes root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["in_folder", "over_ssh"])
def test_a_full_destination(
    request: pytest.FixtureRequest, kind: str, small_disk: Path, sshd: SshServer, identity: tuple[Path, str]
) -> None:
    offsite: Offsite = request.getfixturevalue(kind)
    local = offsite.local()
    full = offsite.run(destination=sshd.url(small_disk) if kind == "over_ssh" else str(small_disk))
    assert full["failed"] and "No space left on device" in full["msg"] and str(small_disk) in full["msg"], full
    sealed = offsite.run(destination=str(small_disk), recipients=[identity[1]])
    assert sealed["failed"] and "No space left on device" in sealed["msg"]
    assert not list(small_disk.glob("*/copy.json"))
    _assert_nothing_lost_and_clean_again(offsite, local)


@pytest.mark.parametrize(
    ("kind", "number"),
    [("over_ssh", signal.SIGKILL), ("over_ssh", signal.SIGTERM), ("in_bucket", signal.SIGKILL)],
)
def test_killed_midway(
    request: pytest.FixtureRequest, kind: str, number: signal.Signals, sshd: SshServer, bucket: Bucket, tmp_path: Path
) -> None:
    offsite: Offsite = request.getfixturevalue(kind)
    local = offsite.local()
    with FaultProxy(sshd.port if kind == "over_ssh" else bucket.port, "hang", 1_500_000) as proxy:
        if kind == "over_ssh":
            (tmp_path / "known").write_text(sshd.known_at(proxy.port))
            destination = offsite.destination.replace(str(sshd.port), str(proxy.port), 1)
            way = {"destination": destination, "ssh_known_hosts_file": str(tmp_path / "known")}
        else:
            way = {"storage_endpoint": f"http://127.0.0.1:{proxy.port}"}
        module = start_module("backup_copy", offsite.arguments(**way))
        # The bucket is looked at on its disk: its stand-in answers nobody else while it hangs.
        place = tmp_path / "far away" if kind == "over_ssh" else bucket.folder
        _wait_until(lambda: any(tmp_path.name in str(path) for path in place.rglob("*cache.rdb*")))
        children = _children(module.pid)
        module.send_signal(number)
        output = module.communicate()[0]
    assert number == signal.SIGKILL or "stopped by SIGTERM: what is not whole" in output
    _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert "not whole" in offsite.finding("backup_copy_leftovers")["summary"]
    _assert_nothing_lost_and_clean_again(offsite, local)


@pytest.mark.parametrize("offsite", ["in_folder", "in_bucket"], indirect=True)
def test_what_an_interrupted_run_of_another_set_left_is_removed(offsite: Offsite) -> None:
    old = "20200131T030000Z"
    names = [f"{old}/copy.begun.json", f"{old}/redis/cache.rdb"]
    if not offsite.destination.startswith("gs://"):
        names = [name.replace(old, f"{old}.partial") for name in names]
    offsite.put(names[0], b'{"files": ["redis/cache.rdb"]}')
    offsite.put(names[1], b"half")
    assert old in offsite.finding("backup_copy_leftovers")["summary"]
    offsite.run()
    assert not any(old in name for name in offsite.listing())
    assert offsite.finding("backup_copy_leftovers")["status"] == "ok"


def test_what_was_sent_already_is_not_sent_again(over_ssh: Offsite, tmp_path: Path) -> None:
    partial = tmp_path / "far away" / f"{over_ssh.identifier}.partial"
    (partial / "redis").mkdir(parents=True)
    sent = partial / "redis/cache.rdb"
    sent.write_bytes(RDB)
    os.utime(sent, (1, 1))
    over_ssh.run()
    assert (tmp_path / "far away" / over_ssh.identifier / "redis/cache.rdb").stat().st_mtime == 1


def test_two_runs_at_once(in_folder: Offsite) -> None:
    runs = [start_module("backup_copy", in_folder.arguments()) for _ in range(3)]
    answers = [json.loads(run.communicate(timeout=60)[0].splitlines()[-1]) for run in runs]
    assert any(answer.get("changed") for answer in answers)
    for answer in answers:
        assert not answer.get("failed") or "another run copies sets of" in answer["msg"]
    assert in_folder.run("checked")["status"] == "ok"


def test_the_examples_run(
    root: Path, tmp_path: Path, sshd: SshServer, bucket: Bucket, identity: tuple[Path, str]
) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    known = f"    ssh_known_hosts_file: {sshd.known_hosts}"
    replacements = {
        "/var/backups/upkeep": str(root),
        "gs://example-offsite/upkeep": f"gs://{BUCKET}/{tmp_path.name}/examples\n    storage_endpoint: {bucket.url}",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p": identity[1],
        "destination: ssh://backup@vault.example.org/srv/copies": f"destination: {sshd.url(folder)}\n{known}",
        "/root/.ssh/copies": str(sshd.key),
    }
    run_examples("backup_copy", replacements)
    assert list(folder.glob("*/copy.json"))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
