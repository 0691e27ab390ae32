# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Firestore emulator: found, started, filled, wiped and fingerprinted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest import mock

from tests.platform.parts.process import PartError, ServerProcess, free_port

_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_JAR = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
_SDK_ROOTS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/google-cloud-sdk", "/opt/google-cloud-sdk")
# Starts in half the time and takes half the CPU of the defaults, which are meant for long runs.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx1g", "-Duser.language=en")
_BATCH = 400
_PAGE = 2000

DEFAULT_DATABASE = "(default)"


class EmulatorMissingError(PartError):
    """Java or the emulator's jar cannot be found; the text says which and where it was looked for."""


def find_emulator() -> tuple[str, Path]:
    """The java program and the emulator's jar. Raises EmulatorMissingError with the reason."""
    java = shutil.which("java")
    if java is None:
        raise EmulatorMissingError("the Firestore emulator needs java, which is not on PATH")
    looked = []
    for jar in _jar_candidates():
        if jar.is_file():
            return java, jar
        looked.append(str(jar))
    raise EmulatorMissingError(
        f"no Firestore emulator: none of {', '.join(looked)} is there (set FIRESTORE_EMULATOR_JAR, or install the "
        "package google-cloud-cli-firestore-emulator or the Google Cloud SDK component cloud-firestore-emulator)"
    )


def _jar_candidates() -> Iterator[Path]:
    """Where the jar may be, surest first; gcloud, which takes a second to answer, is asked last."""
    named = os.environ.get("FIRESTORE_EMULATOR_JAR")
    if named:
        yield Path(named)
        return
    for root in (*_SDK_ROOTS, str(Path.home() / "google-cloud-sdk")):
        yield Path(root) / _JAR
    gcloud = shutil.which("gcloud")
    if gcloud:
        asked = subprocess.run(
            [gcloud, "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, timeout=60
        )
        if asked.returncode == 0 and asked.stdout.strip():
            yield Path(asked.stdout.strip()) / _JAR


@dataclass(frozen=True)
class FirestoreEmulator:
    """The emulator on a port of loopback, with its pid file and log in ``folder``."""

    folder: Path
    port: int

    @property
    def host(self) -> str:
        """``host:port``, as ``emulator_host`` and FIRESTORE_EMULATOR_HOST want it."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> ServerProcess:
        return ServerProcess("firestore-emulator", self.folder)

    def start(self) -> None:
        """Start it unless it runs. Raises EmulatorMissingError, or PartError with the log's end."""
        java, jar = find_emulator()
        argv = [java, *_JVM, "-cp", str(jar), _MAIN_CLASS, "--host", "127.0.0.1", "--port", str(self.port)]
        # Not told one, the emulator opens a port of its own choice that somebody else may be about to use.
        argv += ["--websocket_port", str(free_port())]
        self.process.start(argv, self.ready, timeout=60)

    def stop(self) -> None:
        self.process.stop()

    def ready(self) -> bool:
        """Whether it answers requests."""
        try:
            with urllib.request.urlopen(f"http://{self.host}/", timeout=2) as answer:
                return bool(answer.read().startswith(b"Ok"))
        except OSError:
            return False

    def wipe(self, project: str, database: str = DEFAULT_DATABASE) -> None:
        """Delete every document of a database."""
        quoted = urllib.parse.quote(database)
        self._call("DELETE", f"projects/{project}/databases/{quoted}/documents")

    def export(self, project: str, folder: Path, name: str, database: str = DEFAULT_DATABASE) -> Path:
        """Write an export below an existing folder; returns its overall metadata file."""
        body = {"database": _path(project, database), "export_directory": str(folder), "export_name": name}
        self._call("POST", f"projects/{project}:export", body)
        return folder / name / f"{name}.overall_export_metadata"

    def load(self, project: str, metadata: Path, database: str = DEFAULT_DATABASE) -> None:
        """Import an export, given its overall metadata file; what is there already stays, as in production."""
        body = {"database": _path(project, database), "export_directory": str(metadata)}
        self._call("POST", f"projects/{project}:import", body)

    def bulk_delete(self, project: str, collection_ids: list[str], database: str = DEFAULT_DATABASE) -> None:
        """Delete the documents of some collection groups."""
        self._call(
            "POST",
            f"projects/{project}:bulkDelete",
            {"database": _path(project, database), "collection_ids": collection_ids},
        )

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        request = urllib.request.Request(
            f"http://{self.host}/emulator/v1/{path}",
            method=method,
            headers={"Content-Type": "application/json"},
            data=json.dumps(body).encode() if body else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise PartError(f"the Firestore emulator refused {method} {path}: {text}") from error


def client(host: str, project: str, database: str = DEFAULT_DATABASE) -> Any:
    """A google.cloud.firestore.Client of the emulator at ``host`` (host:port), whatever the environment says."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore

    # The client knows the emulator by this variable alone, and reads it once, when it is made.
    with mock.patch.dict(os.environ, {"FIRESTORE_EMULATOR_HOST": host}):
        return firestore.Client(project=project, database=database, credentials=AnonymousCredentials())


def seed(
    host: str, project: str, documents: int = 200, database: str = DEFAULT_DATABASE, *, random_seed: int = 7
) -> dict[str, int]:
    """Write that many documents, the same for the same ``random_seed``; returns documents per collection group.

    The groups are users, users/*/orders, users/*/orders/*/items and sessions; sessions are spread over the last
    two years up to 2026-07-01 in ``created_at``.
    """
    database_client = client(host, project, database)
    counts: Counter[str] = Counter()
    batch, pending = database_client.batch(), 0
    for _, (path, fields) in zip(range(documents), _documents(database_client, random.Random(random_seed))):
        batch.set(database_client.document(path), fields)
        counts[path.rsplit("/", 2)[-2]] += 1
        pending += 1
        if pending == _BATCH:
            batch.commit()
            batch, pending = database_client.batch(), 0
    if pending:
        batch.commit()
    database_client.close()
    return dict(sorted(counts.items()))


def _documents(database_client: Any, chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and fields of endless documents that use every type of value."""
    from google.cloud.firestore import GeoPoint

    newest = datetime(2026, 7, 1, tzinfo=timezone.utc)
    number = 0
    while True:
        user = f"users/user{number:06d}"
        created = newest - timedelta(minutes=chance.randrange(730 * 1440))
        yield (
            user,
            {
                "name": f"Ünïcode {number}",
                "email": f"user{number}@example.org",
                "active": bool(number % 3),
                "balance": chance.random() * 1000,
                "created_at": created,
                "tags": [f"tag{chance.randrange(9)}" for _ in range(3)],
                "address": {"city": "Köln", "position": GeoPoint(50.9 + chance.random(), 6.9)},
                "avatar": chance.randbytes(16),
                "manager": database_client.document(f"users/user{number // 2:06d}"),
                "deleted": None,
            },
        )
        for order in range(2):
            yield f"{user}/orders/order{order}", {"total": chance.randrange(1000), "created_at": created}
            yield f"{user}/orders/order{order}/items/item0", {"sku": f"S{chance.randrange(999):04d}"}
        for session in range(3):
            started = newest - timedelta(minutes=chance.randrange(730 * 1440))
            yield f"sessions/session{number:06d}-{session}", {"user": user, "created_at": started}
        number += 1


@dataclass(frozen=True)
class Digest:
    """A fingerprint of all documents of a database, with documents per collection group."""

    sha256: str
    collections: Mapping[str, int]

    @property
    def documents(self) -> int:
        return sum(self.collections.values())


def digest(host: str, project: str, database: str = DEFAULT_DATABASE, *, named: str = "") -> Digest:
    """Read every document at any depth in the order of names: equal digests mean equal data.

    ``named``: another database whose name the documents are given, to hold a copy against its source.
    """
    summed = hashlib.sha256()
    counts: Counter[str] = Counter()
    for path, content in contents(host, project, database, named).items():
        summed.update(len(content).to_bytes(4, "big") + content)
        counts[path.rsplit("/", 2)[-2]] += 1
    return Digest(summed.hexdigest(), dict(sorted(counts.items())))


def contents(host: str, project: str, database: str = DEFAULT_DATABASE, named: str = "") -> dict[str, bytes]:
    """Every document at any depth in the order of names: its path, such as ``/users/a``, and its content.

    ``named`` as in :func:`digest`.
    """
    from google.cloud.firestore_v1.types import Document

    ours, other = (f"projects/{project}/databases/{name}/" for name in (database, named or database))
    found = {}
    for document in _all_documents(client(host, project, database)):
        # The times of creation and change are left out: an import sets them anew.
        name = other + document.name.removeprefix(ours)
        content = Document(name=name, fields=document.fields)._pb.SerializeToString(deterministic=True)
        found[document.name.split("/documents", 1)[1]] = content
    return found


def _all_documents(database_client: Any) -> Iterator[Any]:
    """Every document, subcollections included, page by page through one query without a kind."""
    from google.cloud.firestore_v1.types import Cursor, StructuredQuery, Value

    parent = f"{database_client._database_string}/documents"
    by_name = StructuredQuery.Order(field=StructuredQuery.FieldReference(field_path="__name__"), direction=1)
    query = StructuredQuery(
        from_=[StructuredQuery.CollectionSelector(all_descendants=True)], order_by=[by_name], limit=_PAGE
    )
    while True:
        found = 0
        request = {"parent": parent, "structured_query": query}
        answers = database_client._firestore_api.run_query(request=request, metadata=database_client._rpc_metadata)
        for answer in answers:
            if answer.document.name:
                found += 1
                last = answer.document.name
                yield answer.document
        if found < _PAGE:
            return
        query.start_at = Cursor(values=[Value(reference_value=last)], before=False)


def _path(project: str, database: str) -> str:
    return f"projects/{project}/databases/{database}"
