# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform in miniature: which parts it has, in which order they start, and what they hold at first.

    platform = Miniature(Path(".demo/platform"), port=8080)
    platform.up()        # starts what does not run; each sentence it returns is one thing that was done
    platform.down()

Everything it writes lies below its root, every port is one of loopback.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol

from cryptography import x509

from tests.platform import contents
from tests.platform.parts import firestore
from tests.platform.parts.admin_bridge import AdminBridge
from tests.platform.parts.bucket import Bucket
from tests.platform.parts.certificates import CertificateAuthority, defective
from tests.platform.parts.nginx import Nginx
from tests.platform.parts.process import PartError, ServerProcess, accepts, free_port
from tests.platform.parts.redis import RedisServer, seed
from tests.platform.parts.services import NAMES, USES_FIRESTORE, USES_REDIS, Service
from tests.platform.settings import Settings

DEFAULT_PORT = 8080
PROJECT = "upkeep-demo"
BUCKET = "upkeep-demo-backups"
_FIRESTORE_PORTS = ("firestore", "firestore-admin", "firestore-admin-rest", "bucket")
_CERTIFICATE_DAYS = 90
_RENEWED_BEFORE = timedelta(days=45)
_REDIS_KEYS = 2000
_DOCUMENTS = 300
_REQUESTS = 600


class PlatformError(Exception):
    """The platform cannot be started, stopped or broken as asked; the text says why and what to do."""


class Part(Protocol):
    """What every part can do."""

    @property
    def process(self) -> ServerProcess: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Miniature:
    """All parts below one folder. ``port`` is the gateway's: the kept one, or 8080, when not given."""

    def __init__(self, root: Path, port: int | None = None, backups: Path | None = None) -> None:
        self.root = root.resolve()
        self.backups = (backups or self.root / "backups").resolve()
        try:
            self.settings = Settings.read(self.root / "platform.json")
        except ValueError as error:
            raise PlatformError(f"{error}; end its processes and remove {self.root}") from error
        self.settings.ports["nginx"] = port or self.settings.ports.get("nginx", DEFAULT_PORT)
        self._name_parts()

    def up(self) -> list[str]:
        """Start every part that does not run and fill what is empty. Returns what was done, a sentence each."""
        with self._alone():
            self._decide()
            changes = self._renew_certificate()
            for stage in self._stages():
                changes += self._start(stage)
            return changes + self._fill(changes)

    def down(self) -> list[str]:
        """Stop every part, last started first. Returns what was done."""
        if not self.root.exists():
            return []
        with self._alone():
            return [change for stage in reversed(self._stages(every=True)) for change in self._stop(stage)]

    def remove(self) -> list[str]:
        """Stop every part and delete the root. Raises PlatformError when the root is not a platform's."""
        if not self.root.exists():
            return []
        if not (self.root / "platform.json").exists() and {path.name for path in self.root.iterdir()} - {"lock"}:
            raise PlatformError(f"{self.root} is not removed: it holds no platform.json, so it is no platform's folder")
        changes = self.down()
        shutil.rmtree(self.root)
        return [*changes, f"removed {self.root}"]

    def status(self) -> dict[str, str]:
        """State of each part, in starting order: ``running``, ``stopped``, or why it is left out."""
        parts = {name: part for stage in self._stages() for name, part in stage.items()}
        states = {name: "running" if part.process.pid() else "stopped" for name, part in parts.items()}
        if self.settings.firestore_missing:
            states["firestore"] = f"left out: {self.settings.firestore_missing}"
        return states

    def write_certificate(self, defect: str = "") -> None:
        """Put a good or a defective certificate where nginx reads it; a running nginx serves it on return."""
        authority = CertificateAuthority(self.root / "authority", "Demo")
        if defect:
            identity = defective(authority, defect, "localhost")
        else:
            identity = authority.issue("localhost", "127.0.0.1", days=_CERTIFICATE_DAYS)
        identity.write(self._certificates, "gateway")
        self.nginx.reload()

    @property
    def faults(self) -> Path:
        """The folder with one file for each fault that is switched on."""
        return self.root / "faults"

    @property
    def logs(self) -> Path:
        """The folder with the logs of gateway and services."""
        return self.root / "logs"

    @property
    def redis_password_file(self) -> Path:
        """The password of Redis, in a file that its owner alone can read."""
        return self.root / "secrets" / "redis-password"

    @property
    def _certificates(self) -> Path:
        return self.root / "certificates"

    def _name_parts(self) -> None:
        """Make the parts of the settings; nothing is started."""
        ports = self.settings.ports
        password = self.redis_password_file.read_text().strip() if self.redis_password_file.exists() else ""
        self.redis = RedisServer(
            self.root / "redis", port=ports.get("redis"), password=password, appendonly=True, config=["maxmemory 64mb"]
        )
        self.emulator = firestore.FirestoreEmulator(self.root / "firestore", ports.get("firestore", 0))
        self.bucket = Bucket(self.root / "bucket", ports.get("bucket", 0), BUCKET)
        self.bridge = AdminBridge(
            self.root / "firestore-admin",
            grpc_port=ports.get("firestore-admin", 0),
            rest_port=ports.get("firestore-admin-rest", 0),
            emulator_host=self.emulator.host,
            storage_url=self.bucket.url,
            databases=[f"projects/{PROJECT}/databases/{firestore.DEFAULT_DATABASE}"],
        )
        self.services = {name: self._service(name) for name in NAMES}
        self.nginx = Nginx(
            self.root / "nginx",
            logs=self.logs / "nginx",
            port=ports["nginx"],
            tls_port=ports.get("nginx-tls", 0),
            certificate=self._certificates / "gateway.pem",
            key=self._certificates / "gateway.key",
            upstreams={name: [service.port] for name, service in self.services.items()},
        )

    def _service(self, name: str) -> Service:
        ports = self.settings.ports
        return Service(
            name,
            self.root / "services" / name,
            self.logs / "services" / f"{name}.log",
            ports.get(name, 0),
            redis_port=ports.get("redis") if name in USES_REDIS else None,
            redis_password_file=self.redis_password_file,
            firestore_port=ports.get("firestore") if name in USES_FIRESTORE else None,
        )

    def _stages(self, every: bool = False) -> list[Mapping[str, Part]]:
        """The parts in the order they start; those of one stage start at once. ``every``: also what is left out."""
        data: dict[str, Part] = {"redis": self.redis}
        bridge: dict[str, Part] = {}
        if every or not self.settings.firestore_missing:
            data.update({"firestore": self.emulator, "bucket": self.bucket})
            bridge = {"firestore-admin": self.bridge}
        return [data, {**bridge, **self.services}, {"nginx": self.nginx}]

    def _decide(self) -> None:
        """Settle ports, password, and whether Firestore can be had, before anything is started."""
        self.nginx.end_orphans()
        self._refuse_taken_port()
        self._look_for_emulator()
        names = ["redis", "nginx-tls", *NAMES]
        if not self.settings.firestore_missing:
            names += _FIRESTORE_PORTS
        running = {name for name, state in self.status().items() if state == "running"}
        # A part may own several ports, which start with its name.
        self.settings.choose_ports(
            names,
            lambda name, port: any(name.startswith(part) for part in running) or not accepts(port),
            free_port,
        )
        if not self.redis_password_file.exists():
            self.redis_password_file.parent.mkdir(mode=0o700, exist_ok=True)
            self.redis_password_file.touch(mode=0o600)
            self.redis_password_file.write_text(secrets.token_urlsafe(24))
        self._keep_settings()
        self._name_parts()

    def _refuse_taken_port(self) -> None:
        if accepts(self.nginx.port) and not self.nginx.listens_on(self.nginx.port):
            raise PlatformError(
                f"port {self.nginx.port} of 127.0.0.1 is taken by another program; choose a port for the gateway, "
                f"for example PORT={self.nginx.port + 1}"
            )

    def _look_for_emulator(self) -> None:
        if self.emulator.process.pid():
            return
        self.settings.firestore_missing = ""
        try:
            firestore.find_emulator()
        except firestore.EmulatorMissingError as error:
            self.settings.firestore_missing = str(error)
            for name in _FIRESTORE_PORTS:
                self.settings.ports.pop(name, None)

    def _keep_settings(self) -> None:
        self.settings.write(self.root / "platform.json")

    def _renew_certificate(self) -> list[str]:
        path = self._certificates / "gateway.crt"
        if path.exists():
            ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
            if (self.faults / "certificate-expiring").exists() or ends - datetime.now(timezone.utc) > _RENEWED_BEFORE:
                return []
        self.write_certificate()
        return ["issued a certificate for localhost"]

    def _start(self, stage: Mapping[str, Part]) -> list[str]:
        def start(name: str) -> list[str]:
            part = stage[name]
            before = part.process.pid()
            try:
                part.start()
            except PartError as error:
                raise PlatformError(f"{name}: {error}") from error
            return [f"started {name}"] if part.process.pid() not in (None, before) else []

        return _together(start, stage)

    def _stop(self, stage: Mapping[str, Part]) -> list[str]:
        def stop(name: str) -> list[str]:
            ran = stage[name].process.pid() is not None
            stage[name].stop()
            return [f"stopped {name}"] if ran else []

        return _together(stop, stage)

    def _fill(self, changes: list[str]) -> list[str]:
        """Put in what is put in once; the emulator keeps nothing when it ends, so it is filled at each start."""
        done = []
        if "started firestore" in changes:
            counts = firestore.seed(self.emulator.host, PROJECT, _DOCUMENTS)
            done.append(f"filled firestore with {sum(counts.values())} documents")
        once: dict[str, Callable[[], object]] = {
            f"filled redis with {_REDIS_KEYS} keys": lambda: seed(self.redis.client(), _REDIS_KEYS),
            "wrote old logs": lambda: contents.write_old_logs(self.logs / "services", "api-gateway"),
            f"sent {_REQUESTS} requests through the gateway": lambda: contents.send_requests(
                self.nginx.port, NAMES, _REQUESTS
            ),
        }
        for sentence, fill in once.items():
            if sentence not in self.settings.filled:
                fill()
                self.settings.filled.append(sentence)
                self._keep_settings()
                done.append(sentence)
        return done

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let two runs on one root go one after the other."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _together(act: Callable[[str], list[str]], names: Iterable[str]) -> list[str]:
    """What ``act`` says of each name, in their order; it acts on all of them at once."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return [sentence for sentences in pool.map(act, names) for sentence in sentences]
