# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway: a real nginx with everything it writes below one folder, as root or as a plain user."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.upkeep.ops.plugins.module_utils._gateway_traffic import Layout, Traffic

from tests.platform.parts.process import PartError, ServerProcess, accepts

_END = "-----END CERTIFICATE-----\n"
_CONFIG = """\
# Written anew by each start of the platform.
{user}daemon off;
worker_processes 1;
pid {folder}/master.pid;
error_log {logs}/error.log warn;

events {{
    worker_connections 512;
}}

http {{
    # The combined format, then how long the request took and how long the service behind took, in seconds.
    log_format timed '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                     '"$http_referer" "$http_user_agent" rt=$request_time urt="$upstream_response_time"';
    # The probes of a health check are left out: what they find is told by it, and they are no requests of users.
    map $http_user_agent $logged {{ "upkeep.ops.service_health" 0; default 1; }}
    access_log {logs}/access.log timed if=$logged;

    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;

    server_tokens off;
    default_type application/json;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_connect_timeout 2s;
    proxy_read_timeout 30s;

{upstreams}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;

        include {folder}/upkeep/server*.conf;
        location /status/ {{
            alias {folder}/status/;
            types {{ text/html html; application/json json; }}
            add_header Cache-Control no-store;
        }}
{locations}
        location / {{
            return 404 '{{"error": "no such service"}}';
        }}
    }}
}}
"""
_UPSTREAM = """\
    upstream {name} {{
        include {folder}/upkeep/upstreams/{name}.conf;
        keepalive 8;
    }}
"""
_LOCATION = """\
        location /api/{name}/ {{
            proxy_pass http://{name}/;
        }}
"""


@dataclass(frozen=True)
class Nginx:
    """nginx on two ports of loopback, one plain and one TLS, before the services as ``/api/<service>/``."""

    folder: Path
    logs: Path
    port: int
    tls_port: int
    certificate: Path
    key: Path
    #: Ports of loopback that serve each service.
    upstreams: Mapping[str, Sequence[int]]

    @property
    def process(self) -> ServerProcess:
        return ServerProcess("nginx", self.folder)

    @property
    def config(self) -> Path:
        """The configuration that the running nginx reads."""
        return self.folder / "nginx.conf"

    @property
    def traffic(self) -> Path:
        """The folder with the flags and upstreams that say which traffic is let through."""
        return self.folder / "upkeep"

    @property
    def status(self) -> Path:
        """The folder of the status page, served as ``/status/``."""
        return self.folder / "status"

    @property
    def command(self) -> list[str]:
        """nginx with the options that name this configuration."""
        return self._argv()

    @property
    def access_log(self) -> Path:
        return self.logs / "access.log"

    @property
    def error_log(self) -> Path:
        return self.logs / "error.log"

    @property
    def master_pid_file(self) -> Path:
        """The pid file that nginx writes itself, for signals such as the one to open its logs again."""
        return self.folder / "master.pid"

    def start(self) -> None:
        """Start it unless it runs with this configuration; raises PartError with what nginx says."""
        wanted = self._configuration()
        if self.process.pid() is not None and self.config.read_text() == wanted:
            return
        self.stop()
        (self.folder / "temp").mkdir(parents=True, exist_ok=True)
        self.status.mkdir(exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.config.write_text(wanted)
        self._write_traffic()
        self.check()
        self.process.start(self._argv(), lambda: accepts(self.port) and accepts(self.tls_port))

    def _write_traffic(self) -> None:
        """What the role gateway writes for a site; what is closed or out stays so."""
        traffic = Traffic(str(self.traffic))
        layout = Layout(120, "^/api/([A-Za-z0-9._-]+)/", "^/status(/|$)", "closed for maintenance, try again later")
        servers = {name: [f"127.0.0.1:{port}" for port in ports] for name, ports in self.upstreams.items()}
        traffic.write(traffic.install(layout, servers).files)

    def listens_on(self, port: int) -> bool:
        """Whether it runs with a configuration that names the port."""
        return self.process.pid() is not None and f"127.0.0.1:{port};" in self.config.read_text()

    def check(self) -> None:
        """Raises PartError with nginx's own words when it does not like its configuration."""
        answer = subprocess.run([*self._argv(), "-t", "-q"], capture_output=True, text=True)
        if answer.returncode != 0:
            raise PartError(f"nginx refuses {self.config}: {answer.stderr.strip()}")

    def reload(self, timeout: float = 10) -> None:
        """Let the running nginx read certificate and configuration again; returns once it serves the certificate."""
        pid = self.process.pid()
        if pid is None:
            return
        self.check()
        leaf = self.certificate.read_text().partition(_END)[0] + _END
        wanted = ssl.PEM_cert_to_DER_cert(leaf)
        deadline = time.monotonic() + timeout
        before = set(_workers_in(self.folder))
        os.kill(pid, signal.SIGHUP)
        # For a moment old and new workers take connections side by side.
        while self._served() != wanted or any(_takes_connections(worker) for worker in before - {pid}):
            if time.monotonic() > deadline:
                raise PartError(f"nginx still serves another certificate than {self.certificate} after {timeout} s")
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.stop()
        self.end_orphans()

    def end_orphans(self) -> None:
        """End workers whose master was killed: they would keep the ports. Gone when it returns."""
        while self.process.pid() is None and (orphans := list(_workers_in(self.folder))):
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _argv(self) -> list[str]:
        # Debian keeps it in /usr/sbin, which is not on a plain user's PATH.
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise PartError("nginx is not installed: apt-get install nginx")
        return [program, "-e", str(self.error_log), "-p", str(self.folder), "-c", str(self.config)]

    def _configuration(self) -> str:
        return _CONFIG.format(
            # Workers of a master that runs as root would be nobody, who may not enter a private folder.
            user="user root;\n" if os.geteuid() == 0 else "",
            folder=self.folder,
            logs=self.logs,
            port=self.port,
            tls_port=self.tls_port,
            certificate=self.certificate,
            key=self.key,
            upstreams="\n".join(_UPSTREAM.format(name=name, folder=self.folder) for name in self.upstreams),
            locations="\n".join(_LOCATION.format(name=name) for name in self.upstreams),
        )

    def _served(self) -> bytes | None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", self.tls_port), timeout=2)) as secured:
                return secured.getpeercert(binary_form=True)
        except OSError:
            return None


def _workers_in(folder: Path) -> Iterator[int]:
    """Processes named nginx that work in the folder: nobody else starts one there."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_nginx = entry.name.isdigit() and (entry / "comm").read_text() == "nginx\n"
            if is_nginx and (entry / "cwd").readlink() == folder:
                yield int(entry.name)


def _takes_connections(worker: int) -> bool:
    """Whether a worker is neither gone nor shutting down, as it says itself in its command line."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{worker}/cmdline").read_bytes()
        return bool(words) and b"shutting down" not in words
    return False
