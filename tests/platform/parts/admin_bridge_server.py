# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind :mod:`admin_bridge`: google.firestore.admin.v1 over the emulator's own export and import.

Loopback only, no authentication. Unlike the managed service it takes no notice of ``snapshot_time`` beyond checking
it: the emulator exports the present alone.
"""

from __future__ import annotations

import argparse
import http.server
import json
import re
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_export_format import (
    Opener,
    document_path,
    entities,
    folder_opener,
    metadata_name,
    read_metadata,
    read_part,
)
from google.cloud.firestore_admin_v1.types import firestore_admin, operation
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2, json_format

from tests.platform.parts.admin_bridge import OUTCOMES
from tests.platform.parts.bucket import storage
from tests.platform.parts.export_writer import write_export
from tests.platform.parts.firestore import FirestoreEmulator

_STATUS = {
    "CANCELLED": (grpc.StatusCode.CANCELLED, 499),
    "INVALID_ARGUMENT": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "NOT_FOUND": (grpc.StatusCode.NOT_FOUND, 404),
    "INTERNAL": (grpc.StatusCode.INTERNAL, 500),
    "UNIMPLEMENTED": (grpc.StatusCode.UNIMPLEMENTED, 501),
}
_PROCESSING = operation.OperationState.PROCESSING


class ApiError(Exception):
    """An error as the Admin API tells it: the name of a status and a text."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Settings:
    """What the next operations do; changed by PUT /settings."""

    delay: float = 0
    outcome: str = "success"

    def update(self, body: dict[str, Any]) -> None:
        if body["outcome"] not in OUTCOMES:
            raise ApiError("INVALID_ARGUMENT", f"outcome is none of {', '.join(OUTCOMES)}")
        self.delay, self.outcome = float(body["delay"]), body["outcome"]


@dataclass
class Job:
    """One long-running operation: ``metadata`` is what its messages carry, as a proto-plus message."""

    name: str
    metadata: Any
    done: bool = False
    error: ApiError | None = None
    response: Any = None
    #: The state it ends in when nothing fails.
    final_state: Any = operation.OperationState.SUCCESSFUL
    cancelled: threading.Event = field(default_factory=threading.Event)

    def pause(self, settings: Settings) -> None:
        """Let the delay pass, which may be changed meanwhile. Raises ApiError when the operation is cancelled."""
        started = time.monotonic()
        while time.monotonic() - started < settings.delay:
            if self.cancelled.wait(0.02):
                raise ApiError("CANCELLED", "The operation was cancelled.")

    def progress(self, documents: int, size: int, *, finished: bool) -> None:
        for name, amount in (("progress_documents", documents), ("progress_bytes", size)):
            done = operation.Progress(estimated_work=amount, completed_work=amount if finished else amount // 2)
            setattr(self.metadata, name, done)

    def message(self) -> operations_pb2.Operation:
        """The operation as google.longrunning tells it."""
        told = operations_pb2.Operation(name=self.name, done=self.done)
        told.metadata.Pack(type(self.metadata).pb(self.metadata))
        if self.error is not None:
            told.error.code = _STATUS[self.error.status][0].value[0]
            told.error.message = str(self.error)
        elif self.done:
            told.response.Pack(self.response)
        return told


class Operations:
    """google.longrunning.Operations: all jobs since the program started."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def start(self, database: str, metadata: Any, work: Callable[[Job], Any]) -> operations_pb2.Operation:
        """Run ``work`` in a thread of its own; what it returns is the operation's response."""
        metadata.start_time = datetime.now(timezone.utc)
        metadata.operation_state = _PROCESSING
        job = Job(f"{database}/operations/{uuid.uuid4().hex}", metadata)
        self._jobs[job.name] = job
        threading.Thread(target=self._run, args=(job, work), daemon=True).start()
        return job.message()

    def _run(self, job: Job, work: Callable[[Job], Any]) -> None:
        try:
            job.response = work(job)
            state = job.final_state
        except ApiError as error:
            job.error = error
            cancelled = error.status == "CANCELLED"
            state = operation.OperationState.CANCELLED if cancelled else operation.OperationState.FAILED
        except Exception as error:
            job.error = ApiError("INTERNAL", repr(error))
            state = operation.OperationState.FAILED
        job.metadata.end_time = datetime.now(timezone.utc)
        job.metadata.operation_state = state
        job.done = True

    def get(self, request: Any) -> operations_pb2.Operation:
        return self._job(request.name).message()

    def cancel(self, request: Any) -> empty_pb2.Empty:
        self._job(request.name).cancelled.set()
        return empty_pb2.Empty()

    def list(self, request: Any) -> operations_pb2.ListOperationsResponse:
        """The jobs of a database, ``page_size`` at a time; the page token is the index of the page's first job."""
        prefix = request.name.removesuffix("/operations") + "/operations/"
        jobs = [job for name, job in list(self._jobs.items()) if name.startswith(prefix)]
        first = int(request.page_token or 0)
        after = first + (request.page_size or 100)
        return operations_pb2.ListOperationsResponse(
            operations=[job.message() for job in jobs[first:after]],
            next_page_token=str(after) if after < len(jobs) else "",
        )

    def _job(self, name: str) -> Job:
        if name not in self._jobs:
            raise ApiError("NOT_FOUND", f'Operation "{name}" not found.')
        return self._jobs[name]


@dataclass
class FirestoreAdmin:
    """google.firestore.admin.v1.FirestoreAdmin, as far as exports and imports go."""

    emulator: FirestoreEmulator
    storage_url: str
    databases: list[str]
    settings: Settings
    operations: Operations

    def export_documents(self, request: Any) -> operations_pb2.Operation:
        self._must_exist(request.name)
        _must_be_possible(request)
        bucket, prefix = self._location(request.output_uri_prefix)
        prefix = prefix or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S_%f")
        uri = f"gs://{bucket}/{prefix}"
        if self._exists(bucket, metadata_name(prefix)):
            path = f"/{bucket}/{metadata_name(prefix)}"
            raise ApiError("INVALID_ARGUMENT", f"Path already exists: {path}")
        metadata = operation.ExportDocumentsMetadata(
            collection_ids=request.collection_ids,
            namespace_ids=request.namespace_ids,
            output_uri_prefix=uri,
            snapshot_time=request.snapshot_time if request.HasField("snapshot_time") else None,
        )
        outcome = self.settings.outcome

        def work(job: Job) -> Any:
            self._export(job, outcome, request, (bucket, prefix))
            return operation.ExportDocumentsResponse.pb()(output_uri_prefix=uri)

        return self.operations.start(request.name, metadata, work)

    def _export(self, job: Job, outcome: str, request: Any, target: tuple[str, str]) -> None:
        """Outputs first, the overall metadata last: until then there is nothing that could be imported."""
        bucket, prefix = target
        with tempfile.TemporaryDirectory() as temporary:
            overall = self._dump(request, Path(temporary), Path(prefix).name)
            read = folder_opener(temporary)
            written = read_metadata(read, overall.relative_to(temporary).as_posix())
            job.progress(written.documents, written.bytes, finished=False)
            self._upload(bucket, prefix, (path for path in _files(overall.parent) if path != overall), overall.parent)
            job.pause(self.settings)
            if outcome == "failure":
                raise ApiError("INTERNAL", "The export failed, as it was told to.")
            if outcome == "cancelled":
                raise ApiError("CANCELLED", "The operation was cancelled.")
            if outcome == "unfinished":
                job.final_state = _PROCESSING
            if outcome != "no_metadata":
                self._upload(bucket, prefix, [overall], overall.parent)
            job.progress(written.documents, written.bytes, finished=True)

    def _dump(self, request: Any, temporary: Path, name: str) -> Path:
        """An export in a local folder: the emulator's own, or made of it when only some documents are wanted."""
        project, database = _project_and_database(request.name)
        if not request.collection_ids and not request.namespace_ids:
            return self.emulator.export(project, temporary, name, database)
        everything = self.emulator.export(project, temporary, "everything", database)
        read = folder_opener(str(temporary))
        documents = list(_documents(read, everything.relative_to(temporary).as_posix()))
        if request.namespace_ids and "" not in request.namespace_ids:
            documents = []
        groups = _by_group(documents)
        wanted = {group: groups.get(group, []) for group in request.collection_ids or groups}
        return write_export(temporary / "chosen" / name, wanted)

    def import_documents(self, request: Any) -> operations_pb2.Operation:
        self._must_exist(request.name)
        bucket, prefix = self._location(request.input_uri_prefix)
        if not self._exists(bucket, metadata_name(prefix)):
            path = f"/{bucket}/{metadata_name(prefix)}"
            raise ApiError("NOT_FOUND", f"Google Cloud Storage file does not exist: {path}")
        metadata = operation.ImportDocumentsMetadata(
            collection_ids=request.collection_ids,
            namespace_ids=request.namespace_ids,
            input_uri_prefix=request.input_uri_prefix,
        )

        def work(job: Job) -> empty_pb2.Empty:
            job.pause(self.settings)
            self._import(job, request, bucket, prefix)
            return empty_pb2.Empty()

        return self.operations.start(request.name, metadata, work)

    def _import(self, job: Job, request: Any, bucket: str, prefix: str) -> None:
        project, database = _project_and_database(request.name)
        with tempfile.TemporaryDirectory() as temporary:
            self._download(bucket, prefix, Path(temporary))
            read, name = folder_opener(temporary), metadata_name(Path(prefix).name)
            wanted = set(request.collection_ids)
            if wanted - set(read_metadata(read, name).collections):
                raise ApiError("INVALID_ARGUMENT", "The requested kinds/namespaces are not available")
            overall, documents = Path(temporary) / name, list(_documents(read, name))
            if wanted:
                documents = [(group, document) for group, document in documents if group in wanted]
                overall = write_export(Path(temporary) / "chosen", _by_group(documents))
            if documents:
                self.emulator.load(project, overall, database)
            job.progress(len(documents), sum(len(document) for _, document in documents), finished=True)

    def _must_exist(self, database: str) -> None:
        if database not in self.databases:
            project, identifier = _project_and_database(database)
            raise ApiError("NOT_FOUND", f"The database {identifier} does not exist for project {project}.")

    def _location(self, uri: str) -> tuple[str, str]:
        """Bucket and prefix of a gs:// address; the bucket must be there."""
        found = re.fullmatch(r"gs://([^/]+)(?:/(.*?))?/*", uri)
        if not found:
            raise ApiError(
                "INVALID_ARGUMENT",
                "Google Cloud Storage resource path must be in format: gs://<bucket-name>/<object-name>",
            )
        with storage(self.storage_url) as client:
            if not client.bucket(found[1]).exists(timeout=10):
                raise ApiError("NOT_FOUND", f"Google Cloud Storage bucket does not exist: {found[1]}")
        return found[1], found[2] or ""

    def _exists(self, bucket: str, name: str) -> bool:
        with storage(self.storage_url) as client:
            return bool(client.bucket(bucket).blob(name).exists(timeout=10))

    def _upload(self, bucket: str, prefix: str, paths: Iterable[Path], root: Path) -> None:
        with storage(self.storage_url) as client:
            for path in paths:
                blob = client.bucket(bucket).blob(f"{prefix}/{path.relative_to(root).as_posix()}")
                blob.upload_from_filename(str(path), timeout=60)

    def _download(self, bucket: str, prefix: str, folder: Path) -> None:
        parent = Path(prefix).parent
        with storage(self.storage_url) as client:
            for blob in client.list_blobs(bucket, prefix=f"{prefix}/"):
                path = folder / Path(blob.name).relative_to(parent)
                path.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(str(path), timeout=60)


def _documents(read: Opener, name: str) -> Iterable[tuple[str, bytes]]:
    """Collection group and message of each document of an export."""
    for part in read_metadata(read, name).parts:
        for document in entities(read, read_part(read, part).outputs):
            yield document_path(document, name)[-1][0], document


def _by_group(documents: Iterable[tuple[str, bytes]]) -> dict[str, list[bytes]]:
    groups: dict[str, list[bytes]] = {}
    for group, document in documents:
        groups.setdefault(group, []).append(document)
    return groups


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _project_and_database(name: str) -> tuple[str, str]:
    """``projects/<project>/databases/<database>`` in two."""
    _, project, _, database = name.split("/")
    return project, database


def _must_be_possible(request: Any) -> None:
    """The rules of the managed service for ``snapshot_time``."""
    if not request.HasField("snapshot_time"):
        return
    moment = request.snapshot_time.ToDatetime(tzinfo=timezone.utc)
    age = datetime.now(timezone.utc) - moment
    if moment.second or moment.microsecond:
        raise ApiError("INVALID_ARGUMENT", "The snapshot time must be a whole minute.")
    if not timedelta(0) < age < timedelta(days=7):
        raise ApiError("INVALID_ARGUMENT", "The snapshot time must be within the past seven days.")


@dataclass(frozen=True)
class Method:
    """One method of the API, in gRPC and in REST."""

    service: str
    name: str
    request: Any
    call: Callable[[Any], Any]
    verb: str
    path: str


def methods(admin: FirestoreAdmin) -> list[Method]:
    """Everything that is served."""
    database = r"/v1/(?P<name>projects/[^/]+/databases/[^/:]+)"
    one = database[:-1] + r"/operations/[^/:]+)"
    firestore, longrunning = "google.firestore.admin.v1.FirestoreAdmin", "google.longrunning.Operations"
    export, load = firestore_admin.ExportDocumentsRequest.pb(), firestore_admin.ImportDocumentsRequest.pb()
    get, cancel = operations_pb2.GetOperationRequest, operations_pb2.CancelOperationRequest
    listing, jobs = operations_pb2.ListOperationsRequest, admin.operations
    return [
        Method(firestore, "ExportDocuments", export, admin.export_documents, "POST", f"{database}:exportDocuments"),
        Method(firestore, "ImportDocuments", load, admin.import_documents, "POST", f"{database}:importDocuments"),
        Method(longrunning, "GetOperation", get, jobs.get, "GET", one),
        Method(longrunning, "ListOperations", listing, jobs.list, "GET", f"{database}/operations"),
        Method(longrunning, "CancelOperation", cancel, jobs.cancel, "POST", f"{one}:cancel"),
    ]


def serve_grpc(served: list[Method], port: int) -> grpc.Server:
    """Serve the methods over plain gRPC on loopback."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    for service in sorted({method.service for method in served}):
        handlers = {method.name: _grpc_handler(method) for method in served if method.service == service}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def _grpc_handler(method: Method) -> Any:
    def call(request: Any, context: Any) -> Any:
        try:
            return method.call(request)
        except ApiError as error:
            context.abort(_STATUS[error.status][0], str(error))

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=method.request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


class RestServer(http.server.ThreadingHTTPServer):
    """The methods over REST on loopback, and PUT /settings."""

    def __init__(self, port: int, served: list[Method], settings: Settings) -> None:
        super().__init__(("127.0.0.1", port), RestHandler)
        self.served = served
        self.settings = settings

    def call(self, verb: str, path: str, body: bytes) -> dict[str, Any]:
        """Answer one request. Raises ApiError."""
        if (verb, path) == ("PUT", "/settings"):
            self.settings.update(json.loads(body))
            return {}
        for method in self.served:
            found = re.fullmatch(method.path, path)
            if found and method.verb == verb:
                request = json_format.Parse(body, method.request(), ignore_unknown_fields=True)
                request.name = found["name"]
                return dict(json_format.MessageToDict(method.call(request)))
        raise ApiError("UNIMPLEMENTED", f"{verb} {path} is not served by this stand-in")


class RestHandler(http.server.BaseHTTPRequestHandler):
    """Reads a request, lets the server answer it, and writes the answer or the error as Google's APIs do."""

    protocol_version = "HTTP/1.1"
    server: RestServer

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        try:
            status, told = 200, self.server.call(self.command, path, body)
        except ApiError as error:
            status = _STATUS[error.status][1]
            told = {"error": {"code": status, "message": str(error), "status": error.status}}
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: requests are many, and answers tell their errors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--emulator", required=True, help="host:port of the Firestore emulator")
    parser.add_argument("--storage", required=True, help="URL of the storage server")
    parser.add_argument("--database", action="append", default=[], help="full name of a database that exists")
    options = parser.parse_args()
    emulator = FirestoreEmulator(Path(), int(options.emulator.rpartition(":")[2]))
    settings = Settings()
    admin = FirestoreAdmin(emulator, options.storage, options.database, settings, Operations())
    served = methods(admin)
    server = serve_grpc(served, options.grpc_port)
    try:
        RestServer(options.rest_port, served, settings).serve_forever()
    finally:
        server.stop(None)


if __name__ == "__main__":
    main()
