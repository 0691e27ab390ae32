# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform in miniature, asked with curl, openssl and redis-cli; its faults; and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT
from tests.platform.__main__ import main
from tests.platform.parts.process import free_port
from tests.platform.parts.services import NAMES

NOBODY = 65534


@dataclass(frozen=True)
class Running:
    """A platform that was started; everything below is asked of its files and ports, not of its own code."""

    demo: Path
    port: int

    @property
    def root(self) -> Path:
        return self.demo / "platform"

    @property
    def ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.root / "platform.json").read_text())["ports"]
        return ports

    def act(self, *words: str) -> list[str]:
        """Changes that the command line tells of."""
        answer = io.StringIO()
        with contextlib.redirect_stdout(answer):
            assert main([*words, "--root", str(self.root)]) == 0
        changes: list[str] = json.loads(answer.getvalue())["changes"]
        return changes

    def refused(self, *words: str) -> str:
        """What the command line says on standard error when it fails."""
        done = self.command_line(*words)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def command_line(
        self, *words: str, prefix: Sequence[str] = (), **settings: Any
    ) -> subprocess.CompletedProcess[str]:
        """The command line in a process of its own; ``prefix`` makes it another user's."""
        argv = [*prefix, sys.executable, "-m", "tests.platform", *words, "--root", str(self.root)]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, **settings)

    def run_playbook(self, state: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = {"platform_root": str(self.root), "platform_state": state, **variables}
        argv = ["ansible-playbook", "tests/platform/platform.yml", "-i", "localhost,", "-e", json.dumps(given)]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)

    def playbook(self, state: str, **variables: Any) -> int:
        """Run platform.yml; returns the number of changed tasks."""
        done = self.run_playbook(state, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert changed, done.stdout
        return int(changed[1])

    def health(self, service: str, timeout: float = 10) -> tuple[int, str]:
        """Status and body by curl; 0 when there was no answer in time."""
        url = f"http://127.0.0.1:{self.port}/api/{service}/health"
        argv = ["curl", "-s", "-m", str(timeout), "-w", "\n%{http_code}", url]
        body, _, code = subprocess.run(argv, capture_output=True, text=True).stdout.rpartition("\n")
        return int(code), body

    def redis_cli(self, *words: str) -> str:
        password = (self.root / "secrets" / "redis-password").read_text().strip()
        env = {**os.environ, "REDISCLI_AUTH": password}
        argv = ["redis-cli", "-p", str(self.ports["redis"]), *words]
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout.strip()

    def certificate(self) -> tuple[str, bool]:
        """What openssl says of the TLS endpoint, and whether it ends within 30 days."""
        where = ["-connect", f"127.0.0.1:{self.ports['nginx-tls']}", "-servername", "localhost"]
        trust = ["-CAfile", str(self.root / "authority" / "root.pem"), "-verify_hostname", "localhost"]
        argv = ["openssl", "s_client", *where, *trust, "-verify_return_error"]
        seen = subprocess.run(argv, input="", capture_output=True, text=True)
        ends = subprocess.run(
            ["openssl", "x509", "-noout", "-checkend", str(30 * 86400)],
            input=seen.stdout,
            capture_output=True,
            text=True,
        )
        return seen.stdout, ends.returncode == 1


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One platform for the file, started by the playbook."""
    platform = Running(tmp_path_factory.mktemp("demo"), free_port())
    try:
        assert platform.playbook("started", platform_port=platform.port) == 1
        yield platform
    finally:
        platform.act("remove")


def processes_below(folder: Path) -> list[str]:
    """Command lines of all processes that name the folder or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(folder) in words or str((entry / "cwd").readlink()).startswith(str(folder)):
                    found.append(words)
    return found


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone or a zombie: a busy machine takes its time."""
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError):
        while ") Z " not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.02)


def test_each_service_is_healthy_through_the_gateway(running: Running) -> None:
    for service in NAMES:
        code, body = running.health(service)
        assert (code, json.loads(body)["status"], json.loads(body)["service"]) == (200, "UP", service)


def test_tls_endpoint_is_trusted_by_those_who_trust_the_authority(running: Running) -> None:
    seen, near_its_end = running.certificate()
    assert "Verify return code: 0 (ok)" in seen and not near_its_end


def test_redis_holds_data_behind_its_password(running: Running) -> None:
    assert int(running.redis_cli("DBSIZE")) >= 2000
    assert int(running.redis_cli("TTL", "session:0")) > 86400
    refused = subprocess.run(["redis-cli", "-p", str(running.ports["redis"]), "PING"], capture_output=True, text=True)
    assert "NOAUTH" in refused.stdout


def test_secrets_are_their_owners_alone(running: Running) -> None:
    secrets = ["platform.json", "secrets/redis-password", "redis/redis.conf", "certificates/gateway.key"]
    secrets += [f"services/{name}/.env" for name in NAMES]
    assert {name: (running.root / name).stat().st_mode & 0o777 for name in secrets} == dict.fromkeys(secrets, 0o600)


def test_firestore_holds_documents_and_the_bucket_is_there(running: Running) -> None:
    missing = json.loads((running.root / "platform.json").read_text())["firestore_missing"]
    if missing:
        pytest.skip(missing)
    users = f"http://127.0.0.1:{running.ports['firestore']}/v1/projects/upkeep-demo/databases/(default)/documents/users"
    bucket = f"http://127.0.0.1:{running.ports['bucket']}/storage/v1/b/upkeep-demo-backups"
    answers = [subprocess.run(["curl", "-fsS", url], capture_output=True, text=True).stdout for url in (users, bucket)]
    assert len(json.loads(answers[0])["documents"]) >= 20
    assert json.loads(answers[1])["name"] == "upkeep-demo-backups"


def test_access_log_tells_times_and_failures(running: Running) -> None:
    lines = (running.root / "logs/nginx/access.log").read_text().splitlines()
    timed = re.compile(r'^127\.0\.0\.1 - - \[[^]]+\] "GET \S+ HTTP/1.1" (\d{3}) \d+ "-" "[^"]*" rt=\d+\.\d{3} urt="')
    statuses = [found[1] for line in lines if (found := timed.match(line))]
    assert len(statuses) == len(lines) >= 600
    assert {"200", "404", "500"} <= set(statuses)


def test_probes_are_no_requests_of_users(running: Running) -> None:
    """Else an outage that was healed is told again by the response times of the day."""
    log = running.root / "logs/nginx/access.log"
    before = log.read_text()
    url = f"http://127.0.0.1:{running.port}/api/auth-service/health"
    for agent in ("upkeep.ops.service_health", "somebody"):
        subprocess.run(["curl", "-sS", "-o", "/dev/null", "-A", agent, url], check=True)
    added = log.read_text().removeprefix(before)
    assert added.count("\n") == 1 and '"somebody"' in added


def test_started_again_it_is_unchanged(running: Running) -> None:
    assert running.playbook("started", platform_port=running.port, platform_fault="none") == 0
    began = time.monotonic()
    assert running.act("up") == []
    assert time.monotonic() - began < 4


def test_killed_parts_are_started_again_and_nothing_is_lost(running: Running) -> None:
    keys = running.redis_cli("DBSIZE")
    for pid_file in ("nginx/master.pid", "redis/redis.pid", "services/chat-service/service.pid"):
        kill(int((running.root / pid_file).read_text().split()[0]))
    assert sorted(running.act("up")) == ["started chat-service", "started nginx", "started redis"]
    assert running.health("chat-service")[0] == 200
    assert running.redis_cli("DBSIZE") == keys


def test_service_that_somebody_else_restarted_is_still_known(running: Running) -> None:
    folder = running.root / "services" / "auth-service"
    os.kill(int((folder / "service.pid").read_text()), signal.SIGTERM)
    while (folder / "service.pid").exists():
        time.sleep(0.02)
    restarted = subprocess.Popen([sys.executable, str(folder / "server.py")], start_new_session=True)
    while running.health("auth-service")[0] != 200:
        time.sleep(0.02)
    assert running.act("up") == []
    assert running.act("fault", "service-down") == ["stopped auth-service"]
    assert restarted.wait(timeout=10) == 0
    running.act("heal")


@pytest.mark.parametrize(
    ("fault", "service", "code"),
    [
        ("service-down", "auth-service", 502),
        ("service-hanging", "chat-service", 0),
        ("service-503", "link-service", 503),
    ],
)
def test_faults_of_services_show_and_heal(running: Running, fault: str, service: str, code: int) -> None:
    assert len(running.act("fault", fault)) == 1
    assert running.health(service, timeout=1)[0] == code
    assert running.act("up") == [], "starting the platform does not mend a fault"
    assert running.act("heal") == [f"healed {fault}"]
    assert running.health(service)[0] == 200


def test_certificate_near_its_end_is_served_and_renewed(running: Running) -> None:
    running.act("fault", "certificate-expiring")
    assert running.certificate()[1]
    running.act("heal")
    assert not running.certificate()[1]


def test_corrupt_backup_differs_in_one_byte_of_the_newest_set(running: Running) -> None:
    assert "make a backup first" in running.refused("fault", "corrupt-backup")
    content = bytes(range(200))
    for name in ("20260101T000000Z", "20260102T000000Z", "20260103T000000Z.partial"):
        snapshot = running.root / "backups" / name / "redis" / "cache.rdb.zst"
        snapshot.parent.mkdir(parents=True)
        snapshot.write_bytes(content)
        (snapshot.parents[1] / "manifest.json").write_text("{}")
    newest = running.root / "backups/20260102T000000Z/redis/cache.rdb.zst"
    running.act("fault", "corrupt-backup")
    damaged = newest.read_bytes()
    assert [place for place in range(200) if damaged[place] != content[place]] == [100]
    running.act("heal")
    assert newest.read_bytes() == content


def test_full_log_is_large_in_size_and_small_on_disk(running: Running) -> None:
    running.act("fault", "full-log")
    (log,) = (running.root / "logs").rglob("*.trace")
    assert log.stat().st_size > 1024**3 and log.stat().st_blocks * 512 < 1024**2
    running.act("fault", "service-503")
    assert not log.exists(), "one fault takes the place of another"
    assert running.act("fault", "none") == ["healed service-503"]


def test_unknown_fault_is_refused_with_those_that_there_are(running: Running) -> None:
    assert "there are: service-down, service-hanging" in running.refused("fault", "earthquake")


def test_report_of_a_run_is_held_against_the_faults(running: Running, tmp_path: Path) -> None:
    def judged(*findings: dict[str, str]) -> dict[str, list[str]]:
        report = tmp_path / "report.json"
        report.write_text(json.dumps({"run": {"findings": findings}}))
        answer: dict[str, list[str]] = json.loads(running.command_line("judge", str(report)).stdout)
        return answer

    down = {"procedure": "health_check", "subject": "auth-service", "status": "critical", "summary": "no answer"}
    full = {"procedure": "performance_monitoring", "subject": "/", "status": "critical", "summary": "is full"}
    running.act("fault", "service-down")
    assert judged(down) == {"missed": [], "other": []}
    assert judged({**down, "status": "warning"}, full) == {"missed": ["service-down"], "other": ["/: is full"]}
    running.act("heal")
    assert judged(down)["other"] == ["auth-service: no answer"]


def inventory(demo: Path) -> subprocess.CompletedProcess[str]:
    """The catalog of the demo's inventory, templated."""
    names = ["site", "services", "gateway", "redis", "firestore", "backup", "certificates", "logs", "contacts", "state"]
    message = "{{ {" + ", ".join(f"'{name}': upkeep_{name}" for name in names) + "} | to_json }}"
    argv = ["ansible", "demo", "-i", "inventories/demo", "-m", "ansible.builtin.debug", "-a", f"msg={message}"]
    env = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    return subprocess.run([*argv, "-e", f"demo_root={demo}"], cwd=ROOT, env=env, capture_output=True, text=True)


def test_inventory_follows_the_platform_and_its_wrong_password(running: Running) -> None:
    running.act("fault", "redis-password")
    answer = inventory(running.demo)
    running.act("heal")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    catalog = json.loads(json.loads(answer.stdout.partition("=>")[2])["msg"])
    assert [service["name"] for service in catalog["services"]] == list(NAMES)
    assert [service["name"] for service in catalog["services"] if not service["critical"]] == list(NAMES[-2:])
    assert catalog["redis"][0]["port"] == running.ports["redis"]
    assert catalog["redis"][0]["password"] == "a-wrong-password"
    assert len(catalog["contacts"]) == 10


def test_inventory_says_that_the_platform_is_not_there(tmp_path: Path) -> None:
    answer = inventory(tmp_path)
    assert answer.returncode != 0
    assert "The platform of the demo is not there. Start it with: make demo" in answer.stdout + answer.stderr


def test_taken_port_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        platform = Running(tmp_path, port)
        told = platform.run_playbook("started", platform_port=port)
    started = processes_below(tmp_path)
    platform.act("remove")
    words = f"port {port} of 127.0.0.1 is taken by another program; choose a port for the gateway"
    assert told.returncode != 0 and words in " ".join(told.stdout.split()), told.stdout
    assert started == [] and not platform.root.exists()


def as_plain_user(folder: Path) -> list[str]:
    """Words that run a command as a user without rights, who owns the folder; none for who is no root anyway."""
    if os.geteuid() != 0:
        return []
    os.chown(folder, NOBODY, NOBODY)
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    # It may read everything, for interpreter and repository may lie in root's home, and has no other right.
    reads = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    bounds = ["--bounding-set=-all,+dac_read_search", "--clear-groups"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", *reads, *bounds]


def test_plain_user_without_an_emulator_has_all_the_rest(tmp_path_factory: pytest.TempPathFactory) -> None:
    demo = tmp_path_factory.mktemp("plain")
    prefix = as_plain_user(demo)
    platform = Running(demo, free_port())
    missing = {**os.environ, "FIRESTORE_EMULATOR_JAR": str(demo / "missing.jar")}
    try:
        first = platform.command_line("up", "--port", str(platform.port), prefix=prefix, env=missing)
        assert "started nginx" in first.stdout and "started firestore" not in first.stdout, first.stderr
        assert platform.health("auth-service")[0] == 200
        assert json.loads(platform.command_line("up", prefix=prefix, env=missing).stdout) == {"changes": []}
        kept = json.loads((platform.root / "platform.json").read_text())
        assert "missing.jar" in kept["firestore_missing"] and "firestore" not in kept["ports"]
        owners = {path.stat().st_uid for path in platform.root.rglob("*")}
        assert owners == {NOBODY if prefix else os.geteuid()}
    finally:
        platform.command_line("remove", prefix=prefix)
    assert processes_below(demo) == []


def test_removed_it_leaves_no_process_and_no_file(running: Running) -> None:
    assert processes_below(running.root)
    assert running.playbook("absent") == 1
    assert processes_below(running.root) == []
    assert not running.root.exists()
    assert running.act("remove") == []


def test_folder_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "letter.txt").write_text("dear")
    assert "it is no platform's folder" in Running(tmp_path, 0).refused("remove")
    assert (tmp_path / "platform" / "letter.txt").read_text() == "dear"
