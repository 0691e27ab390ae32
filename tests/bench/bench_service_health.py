# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""service_health beside curl --parallel, a loop of curl and a loop of the uri module."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.common import Pair, Row, at_most, in_turns, over, timed
from tests.harness import ROOT, start_module
from tests.platform.parts.process import ServerProcess, accepts, free_port

ENDPOINTS = 1000
LATENCY_MS = 50
WORKERS = 50
LIMIT_S = 2.0
#: What takes too long to be done for all endpoints is done for so many, and scaled.
SAMPLE = 20

_ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


def rows() -> list[Row]:
    """All comparisons; takes about two minutes."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name, _endpoints(Path(name)) as base:
        return list(_Bench(base, Path(name)).rows())


@contextmanager
def _endpoints(folder: Path) -> Iterator[str]:
    """The server of all endpoints, in a process of its own."""
    server, port = ServerProcess("endpoints", folder), free_port()
    script = Path(__file__).with_name("endpoints.py")
    server.start([sys.executable, str(script), str(port), str(LATENCY_MS)], lambda: accepts(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


class _Bench:
    def __init__(self, base: str, folder: Path) -> None:
        self._folder = folder
        self._good = [f"{base}/api/service-{n}/health" for n in range(ENDPOINTS)]
        self._tenth_hangs = [url.replace("/api/", "/hang/") if n % 10 == 0 else url for n, url in enumerate(self._good)]

    def rows(self) -> Iterator[Row]:
        start = timed(lambda: self.module(self._good[:1]))
        parallel = in_turns(
            lambda: timed(lambda: self.module(self._good)), lambda: timed(lambda: self.curl_parallel(self._good)), 5
        )
        yield at_most(
            f"{ENDPOINTS} endpoints, {WORKERS} at a time: curl --parallel",
            parallel,
            2,
            note=f"whole processes; of ours {start:.2f} s are the start of Python, the module and one probe.",
        )
        yield at_most(
            f"the same, a tenth hangs to a limit of {LIMIT_S:g} s: curl --parallel",
            in_turns(
                lambda: timed(lambda: self.module(self._tenth_hangs)),
                lambda: timed(lambda: self.curl_parallel(self._tenth_hangs)),
                1,
            ),
            1.3,
            note="whole processes.",
        )
        yield over(
            f"{ENDPOINTS} endpoints: loop of curl",
            Pair(parallel.ours, timed(self.curl_loop) / SAMPLE * ENDPOINTS),
            20,
            note=f"theirs is a shell loop over {SAMPLE} endpoints, scaled; whole processes.",
        )
        yield self._beside_uri()
        yield at_most(
            "median of the reported latencies, default concurrency: curl alone",
            in_turns(self.reported_latency, self.true_latency),
            1.1,
            unit="ms",
            note=f"theirs is the median of {SAMPLE} requests one after the other, as curl reports them.",
        )

    def _beside_uri(self) -> Row:
        nothing = min(timed(lambda: self.playbook([])) for _turn in range(2))
        ours = timed(lambda: self.playbook([{"upkeep.ops.service_health": self.arguments(self._good)}])) - nothing
        loop = {"ansible.builtin.uri": {"url": "{{ item }}"}, "loop": self._good[:SAMPLE]}
        theirs = (timed(lambda: self.playbook([loop])) - nothing) / SAMPLE * ENDPOINTS
        return over(
            f"{ENDPOINTS} endpoints, as a task: loop of uri",
            Pair(ours, theirs),
            100,
            note=f"both in a playbook, less the time of an empty one; theirs is {SAMPLE} items, scaled.",
        )

    @staticmethod
    def arguments(urls: Sequence[str], concurrency: int = WORKERS) -> dict[str, Any]:
        probes = [{"name": f"{n}", "url": url, "timeout": LIMIT_S} for n, url in enumerate(urls)]
        return {"probes": probes, "concurrency": concurrency, "fail_on": "never"}

    def module(self, urls: Sequence[str], concurrency: int = WORKERS) -> dict[str, Any]:
        """A whole run of the module; what it found must be true."""
        output, errors = start_module("service_health", self.arguments(urls, concurrency)).communicate()
        answer: dict[str, Any] = json.loads(output)
        hanging = sum(1 for url in urls if "/hang/" in url)
        found = sum(1 for finding in answer["findings"] if finding["status"] == "critical")
        assert found == hanging, f"{found} of {hanging} hanging endpoints were found: {answer['summary']} {errors}"
        return answer

    def curl_parallel(self, urls: Sequence[str]) -> None:
        """Not waiting for connections to be shared, which is faster here."""
        config = self._folder / "curl.cfg"
        config.write_text("".join(f'url = "{url}"\noutput = /dev/null\n' for url in urls), encoding="utf-8")
        options = ["--parallel", "--parallel-immediate", "--parallel-max", str(WORKERS), "--max-time", str(LIMIT_S)]
        subprocess.run(["curl", "-s", "--no-progress-meter", *options, "-K", config], check=False)

    def curl_loop(self) -> None:
        """As scripts do it."""
        script = 'for url; do curl -f -s "$url" > /dev/null || echo "$url is unhealthy"; done'
        subprocess.run(["bash", "-c", script, "loop", *self._good[:SAMPLE]], check=True)

    def reported_latency(self) -> float:
        answer = self.module(self._good[:400], concurrency=20)
        times: list[float] = [probe["phases"]["total_ms"] for probe in answer["probes"]]
        return statistics.median(times)

    def true_latency(self) -> float:
        options = ["-s", "-o", "/dev/null", "-w", "%{time_total}"]
        times = [
            float(subprocess.run(["curl", *options, url], capture_output=True, check=True).stdout) * 1000
            for url in self._good[:SAMPLE]
        ]
        return statistics.median(times)

    def playbook(self, tasks: list[dict[str, Any]]) -> None:
        playbook = self._folder / "playbook.json"
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        variables = {"ansible_python_interpreter": sys.executable}
        playbook.write_text(json.dumps([{**play, "vars": variables}]), encoding="utf-8")
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_PIPELINING": "true",
        }
        subprocess.run(
            [str(_ANSIBLE_PLAYBOOK), "-i", "localhost,", str(playbook)],
            check=True,
            capture_output=True,
            env=environment,
        )
