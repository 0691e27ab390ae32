# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind :mod:`admin_bridge`: google.firestore.admin.v1 over the emulator's own export and import.

Databases are created and deleted here: the emulator answers for any name, as if it were an empty database.

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
from google.cloud.firestore_admin_v1.types import Field, Index, firestore_admin, operation
from google.cloud.firestore_admin_v1.types import database as database_types
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2, json_format

from tests.platform.parts.admin_bridge import METHODS, OUTCOMES
from tests.platform.parts.bucket import storage
from tests.platform.parts.export_writer import moved, write_export
from tests.platform.parts.firestore import DEFAULT_DATABASE, FirestoreEmulator

_STATUS = {
    "CANCELLED": (grpc.StatusCode.CANCELLED, 499),
    "INVALID_ARGUMENT": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "NOT_FOUND": (grpc.StatusCode.NOT_FOUND, 404),
    "ALREADY_EXISTS": (grpc.StatusCode.ALREADY_EXISTS, 409),
    "FAILED_PRECONDITION": (grpc.StatusCode.FAILED_PRECONDITION, 400),
    "INTERNAL": (grpc.StatusCode.INTERNAL, 500),
    "UNIMPLEMENTED": (grpc.StatusCode.UNIMPLEMENTED, 501),
}
_PROCESSING = operation.OperationState.PROCESSING
_DATABASE_ID = re.compile(r"[a-z][a-z0-9-]{2,61}[a-z0-9]")
_LOCATION = "eur3"


class ApiError(Exception):
    """An error as the Admin API tells it: the name of a status and a text."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Settings:
    """What the next operations do; changed by PUT /settings. ``method`` is the one that it is for, empty all."""

    delay: float = 0
    outcome: str = "success"
    method: str = ""

    def update(self, body: dict[str, Any]) -> None:
        if body["outcome"] not in OUTCOMES:
            raise ApiError("INVALID_ARGUMENT", f"outcome is none of {', '.join(OUTCOMES)}")
        if body["method"] not in ("", *METHODS):
            raise ApiError("INVALID_ARGUMENT", f"method is none of {', '.join(METHODS)}")
        self.delay, self.outcome, self.method = float(body["delay"]), body["outcome"], body["method"]

    def delay_of(self, method: str) -> float:
        return self.delay if self.method in ("", method) else 0

    def outcome_of(self, method: str) -> str:
        return self.outcome if self.method in ("", method) else "success"


@dataclass
class Job:
    """One long-running operation: ``metadata`` is what its messages carry, as a proto-plus message."""

    name: str
    metadata: Any
    #: One of METHODS.
    method: str
    done: bool = False
    error: ApiError | None = None
    response: Any = None
    #: The state it ends in when nothing fails.
    final_state: Any = operation.OperationState.SUCCESSFUL
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def has_state(self) -> bool:
        """Whether its metadata tells times and state; that of creating and deleting databases is empty."""
        return "operation_state" in type(self.metadata).pb().DESCRIPTOR.fields_by_name

    def pause(self, settings: Settings) -> None:
        """Let the delay pass, which may be changed meanwhile. Raises ApiError when the operation is cancelled."""
        started = time.monotonic()
        while time.monotonic() - started < settings.delay_of(self.method):
            if self.cancelled.wait(0.02):
                raise ApiError("CANCELLED", "The operation was cancelled.")

    def end_as(self, outcome: str) -> None:
        """Raises ApiError when the operation is to end badly; the state that it ends in may be set too."""
        if outcome == "failure":
            raise ApiError("INTERNAL", f"The {self.method} failed, as it was told to.")
        if outcome == "cancelled":
            raise ApiError("CANCELLED", "The operation was cancelled.")
        if outcome == "unfinished":
            self.final_state = _PROCESSING

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


@dataclass
class Schema:
    """Indexes and fields that are listed, as the API tells them in JSON; changed by PUT /schema."""

    indexes: list[dict[str, Any]] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)

    def update(self, body: dict[str, Any]) -> None:
        self.indexes, self.fields = body["indexes"], body["fields"]

    def list_indexes(self, _request: Any) -> Any:
        """All at once, whatever the collection group."""
        listed = [json_format.ParseDict(index, Index.pb()()) for index in self.indexes]
        return firestore_admin.ListIndexesResponse.pb()(indexes=listed)

    def list_fields(self, request: Any) -> Any:
        """Those with settings of their own: the service lists no others."""
        if "usesAncestorConfig" not in request.filter and "ttlConfig" not in request.filter:
            raise ApiError("INVALID_ARGUMENT", "The filter must be on indexConfig.usesAncestorConfig or ttlConfig.")
        listed = [json_format.ParseDict(entry, Field.pb()()) for entry in self.fields]
        return firestore_admin.ListFieldsResponse.pb()(fields=listed)


class Operations:
    """google.longrunning.Operations: all jobs since the program started."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def start(self, database: str, method: str, metadata: Any, work: Callable[[Job], Any]) -> operations_pb2.Operation:
        """Run ``work`` in a thread of its own; what it returns is the operation's response."""
        job = Job(f"{database}/operations/{uuid.uuid4().hex}", metadata, method)
        if job.has_state:
            metadata.start_time = datetime.now(timezone.utc)
            metadata.operation_state = _PROCESSING
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
        if job.has_state:
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
class Databases:
    """The databases that exist, by their full names, and what is done with whole ones."""

    emulator: FirestoreEmulator
    settings: Settings
    operations: Operations
    known: dict[str, Any]

    def must_exist(self, name: str) -> None:
        if name not in self.known:
            project, identifier = _project_and_database(name)
            raise ApiError("NOT_FOUND", f"The database {identifier} does not exist for project {project}.")

    def create(self, request: Any) -> operations_pb2.Operation:
        name = f"{request.parent}/databases/{request.database_id}"
        if request.database_id != DEFAULT_DATABASE and not _DATABASE_ID.fullmatch(request.database_id):
            raise ApiError("INVALID_ARGUMENT", f"Invalid database id: {request.database_id}")
        if not request.database.location_id or not request.database.type_:
            raise ApiError("INVALID_ARGUMENT", "Database location_id and type are required.")
        if name in self.known:
            raise ApiError("ALREADY_EXISTS", "Database already exists. Please use another database_id")
        made = _database(name, request.database.location_id)
        made.delete_protection_state = request.database.delete_protection_state
        self.known[name] = made
        outcome = self.settings.outcome_of("create_database")

        def work(job: Job) -> Any:
            job.pause(self.settings)
            try:
                job.end_as(outcome)
            except ApiError:
                self.known.pop(name, None)
                raise
            return type(made).pb(made)

        return self.operations.start(name, "create_database", firestore_admin.CreateDatabaseMetadata(), work)

    def get(self, request: Any) -> Any:
        self.must_exist(request.name)
        known = self.known[request.name]
        return type(known).pb(known)

    def list(self, request: Any) -> Any:
        found = [known for name, known in self.known.items() if name.startswith(f"{request.parent}/databases/")]
        return firestore_admin.ListDatabasesResponse.pb(firestore_admin.ListDatabasesResponse(databases=found))

    def delete(self, request: Any) -> operations_pb2.Operation:
        self.must_exist(request.name)
        known = self.known[request.name]
        if known.delete_protection_state == database_types.Database.DeleteProtectionState.DELETE_PROTECTION_ENABLED:
            raise ApiError("FAILED_PRECONDITION", "Database delete protection is enabled.")
        outcome = self.settings.outcome_of("delete_database")

        def work(job: Job) -> Any:
            job.pause(self.settings)
            job.end_as(outcome)
            self.emulator.wipe(*_project_and_database(request.name))
            self.known.pop(request.name, None)
            return type(known).pb(known)

        return self.operations.start(request.name, "delete_database", firestore_admin.DeleteDatabaseMetadata(), work)

    def bulk_delete(self, request: Any) -> operations_pb2.Operation:
        """As the managed service has it, no ids at all mean everything."""
        self.must_exist(request.name)
        metadata = operation.BulkDeleteDocumentsMetadata(
            collection_ids=request.collection_ids, namespace_ids=request.namespace_ids
        )
        outcome = self.settings.outcome_of("bulk_delete")

        def work(job: Job) -> Any:
            job.pause(self.settings)
            job.end_as(outcome)
            project, database = _project_and_database(request.name)
            if request.collection_ids:
                self.emulator.bulk_delete(project, list(request.collection_ids), database)
            else:
                self.emulator.wipe(project, database)
            return firestore_admin.BulkDeleteDocumentsResponse.pb()()

        return self.operations.start(request.name, "bulk_delete", metadata, work)


def _database(name: str, location: str) -> Any:
    """A database as the Admin API tells of it."""
    return database_types.Database(
        name=name,
        uid=str(uuid.uuid4()),
        create_time=datetime.now(timezone.utc),
        location_id=location,
        type_=database_types.Database.DatabaseType.FIRESTORE_NATIVE,
    )


@dataclass
class FirestoreAdmin:
    """google.firestore.admin.v1.FirestoreAdmin, as far as exports and imports go."""

    emulator: FirestoreEmulator
    storage_url: str
    databases: Databases
    settings: Settings
    operations: Operations
    schema: Schema = field(default_factory=Schema)

    def export_documents(self, request: Any) -> operations_pb2.Operation:
        self.databases.must_exist(request.name)
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
        outcome = self.settings.outcome_of("export")

        def work(job: Job) -> Any:
            self._export(job, outcome, request, (bucket, prefix))
            return operation.ExportDocumentsResponse.pb()(output_uri_prefix=uri)

        return self.operations.start(request.name, "export", metadata, work)

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
            job.end_as(outcome)
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
        self.databases.must_exist(request.name)
        bucket, prefix = self._location(request.input_uri_prefix)
        if not self._exists(bucket, metadata_name(prefix)):
            path = f"/{bucket}/{metadata_name(prefix)}"
            raise ApiError("NOT_FOUND", f"Google Cloud Storage file does not exist: {path}")
        metadata = operation.ImportDocumentsMetadata(
            collection_ids=request.collection_ids,
            namespace_ids=request.namespace_ids,
            input_uri_prefix=request.input_uri_prefix,
        )

        outcome = self.settings.outcome_of("import")

        def work(job: Job) -> empty_pb2.Empty:
            job.pause(self.settings)
            job.end_as(outcome)
            self._import(job, request, bucket, prefix)
            return empty_pb2.Empty()

        return self.operations.start(request.name, "import", metadata, work)

    def _import(self, job: Job, request: Any, bucket: str, prefix: str) -> None:
        project, database = _project_and_database(request.name)
        with tempfile.TemporaryDirectory() as temporary:
            self._download(bucket, prefix, Path(temporary))
            read, name = folder_opener(temporary), metadata_name(Path(prefix).name)
            wanted = set(request.collection_ids)
            if wanted - set(read_metadata(read, name).collections):
                raise ApiError("INVALID_ARGUMENT", "The requested kinds/namespaces are not available")
            overall, documents = Path(temporary) / name, list(_documents(read, name))
            # The emulator puts documents where their keys say, whichever database is named.
            placed = [(group, moved(document, database)) for group, document in documents]
            if wanted or placed != documents:
                documents = [(group, document) for group, document in placed if group in wanted or not wanted]
                overall = write_export(Path(temporary) / "chosen", _by_group(documents))
            if documents:
                self.emulator.load(project, overall, database)
            job.progress(len(documents), sum(len(document) for _, document in documents), finished=True)

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
    #: Its groups are fields of the request.
    path: str
    #: The field of the request that the body is; empty when it is the request itself.
    body: str = ""


def methods(admin: FirestoreAdmin) -> list[Method]:
    """Everything that is served."""
    database = r"/v1/(?P<name>projects/[^/]+/databases/[^/:]+)"
    one = database[:-1] + r"/operations/[^/:]+)"
    firestore, longrunning = "google.firestore.admin.v1.FirestoreAdmin", "google.longrunning.Operations"
    export, load = firestore_admin.ExportDocumentsRequest.pb(), firestore_admin.ImportDocumentsRequest.pb()
    project, databases = r"/v1/(?P<parent>projects/[^/]+)/databases", admin.databases
    create, find = firestore_admin.CreateDatabaseRequest.pb(), firestore_admin.GetDatabaseRequest.pb()
    find_all, remove = firestore_admin.ListDatabasesRequest.pb(), firestore_admin.DeleteDatabaseRequest.pb()
    bulk = firestore_admin.BulkDeleteDocumentsRequest.pb()
    get, cancel = operations_pb2.GetOperationRequest, operations_pb2.CancelOperationRequest
    listing, jobs = operations_pb2.ListOperationsRequest, admin.operations
    indexes, fields = firestore_admin.ListIndexesRequest.pb(), firestore_admin.ListFieldsRequest.pb()
    return [
        Method(firestore, "ExportDocuments", export, admin.export_documents, "POST", f"{database}:exportDocuments"),
        Method(firestore, "ImportDocuments", load, admin.import_documents, "POST", f"{database}:importDocuments"),
        Method(firestore, "CreateDatabase", create, databases.create, "POST", project, body="database"),
        Method(firestore, "GetDatabase", find, databases.get, "GET", database),
        Method(firestore, "ListDatabases", find_all, databases.list, "GET", project),
        Method(firestore, "DeleteDatabase", remove, databases.delete, "DELETE", database),
        Method(
            firestore, "BulkDeleteDocuments", bulk, databases.bulk_delete, "POST", f"{database}:bulkDeleteDocuments"
        ),
        Method(longrunning, "GetOperation", get, jobs.get, "GET", one),
        Method(longrunning, "ListOperations", listing, jobs.list, "GET", f"{database}/operations"),
        # By gRPC alone: no path is like these.
        Method(firestore, "ListIndexes", indexes, admin.schema.list_indexes, "GET", ""),
        Method(firestore, "ListFields", fields, admin.schema.list_fields, "GET", ""),
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
    """The methods over REST on loopback, and PUT /settings and /schema."""

    def __init__(self, port: int, served: list[Method], settings: Settings, schema: Schema) -> None:
        super().__init__(("127.0.0.1", port), RestHandler)
        self.served = served
        self.settings = settings
        self.schema = schema

    def call(self, verb: str, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        """Answer one request. Raises ApiError."""
        if (verb, path) == ("PUT", "/settings"):
            self.settings.update(json.loads(body))
            return {}
        if (verb, path) == ("PUT", "/schema"):
            self.schema.update(json.loads(body))
            return {}
        for method in self.served:
            found = re.fullmatch(method.path, path)
            if found and method.verb == verb:
                told = {method.body: json.loads(body)} if method.body else json.loads(body)
                request = json_format.ParseDict({**query, **told}, method.request(), ignore_unknown_fields=True)
                for name, value in found.groupdict().items():
                    setattr(request, name, value)
                return dict(json_format.MessageToDict(method.call(request)))
        raise ApiError("UNIMPLEMENTED", f"{verb} {path} is not served by this stand-in")


class RestHandler(http.server.BaseHTTPRequestHandler):
    """Reads a request, lets the server answer it, and writes the answer or the error as Google's APIs do."""

    protocol_version = "HTTP/1.1"
    server: RestServer

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"
        address = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(address.path), dict(urllib.parse.parse_qsl(address.query))
        try:
            status, told = 200, self.server.call(self.command, path, query, body)
        except ApiError as error:
            status = _STATUS[error.status][1]
            told = {"error": {"code": status, "message": str(error), "status": error.status}}
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

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
    operations = Operations()
    known = {name: _database(name, _LOCATION) for name in options.database}
    databases = Databases(emulator, settings, operations, known)
    admin = FirestoreAdmin(emulator, options.storage, databases, settings, operations)
    served = methods(admin)
    server = serve_grpc(served, options.grpc_port)
    try:
        RestServer(options.rest_port, served, settings, admin.schema).serve_forever()
    finally:
        server.stop(None)


if __name__ == "__main__":
    main()
