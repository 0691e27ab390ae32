"""The HTML report as people see it: in a real browser, on a screen and on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.examples import run_tasks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

AT = "2026-01-31T06:00:00Z"
LONG = "answerWithoutAnyPlaceToBreak" * 8

#: Shows the report in a frame of the given width and writes down what the browser made of it.
_PROBE = """<!doctype html><body><iframe src="{page}" width="{width}" height="900" onload="
  const page = this.contentDocument, box = element => page.querySelector(element).getBoundingClientRect();
  document.body.textContent = JSON.stringify({{
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    verdict: page.querySelector('h1').textContent, verdictTop: box('h1').top, findingTop: box('article').top,
    findings: page.querySelectorAll('section:first-of-type article').length,
    backups: page.querySelector('#backups + article p')?.textContent,
    checklists: [...page.querySelectorAll('#checklists ~ details')].map(
      list => [list.open, ...[...list.querySelectorAll('summary, td')].map(cell => cell.textContent)]),
    objectives: [...page.querySelectorAll('#objectives + div tbody tr')].map(
      row => [...row.children].map(cell => cell.textContent)),
    plots: page.querySelectorAll('svg polyline').length,
    loads: page.querySelectorAll('[src],link,script').length
  }});"></iframe>"""


def finding(subject: str, status: str, parent: str = "") -> dict[str, Any]:
    return {
        "procedure": "health_check", "check": "service_health", "subject": subject, "host": "localhost",
        "status": status, "summary": f"is {status}: {LONG}", "value": 12.5, "unit": "ms", "threshold": None,
        "observed_at": AT, "hint": f"Look at {LONG}", "parent": parent, "since": AT,
    }  # fmt: skip


def data() -> dict[str, Any]:
    findings = [
        finding("redis:cache", "critical"), finding("auth-service", "critical", "redis:cache"),
        finding("disk", "warning"), finding("door", "ok"),
    ]  # fmt: skip
    item = {
        "checklist": "monthly", "title": "Monthly <b>Checklist</b>", "item": "policies",
        "text": "Review <i>policies</i>", "kind": "manual", "period": "2026-01", "about": "", "state": "overdue",
        "summary": "due since 2026-01-22", "signed_by": "", "signed_at": "", "outcome": "", "evidence": "",
    }  # fmt: skip
    sign = {"state": "done", "signed_by": "<script>Lead</script>", "signed_at": AT, "evidence": f"|{LONG}"}
    items = [
        {**item, **sign, "text": "Training", "outcome": "not_needed"}, item,
        {**item, **sign, "checklist": "pre", "title": "Pre", "about": "Release 42", "period": "w1", "outcome": "done"},
    ]  # fmt: skip
    outcome = {
        "procedure": "health_check", "host": "localhost", "status": "critical", "started_at": AT, "seconds": 1.5,
        "failed": False, "error": "", "changed": True, "changes": [f"rotated {LONG}"],
        "artifacts": {"checklists": items},
    }  # fmt: skip
    run = {
        "id": "20260131T060000Z-daily-1f2e", "name": "daily", "site": "test", "status": "critical", "started_at": AT,
        "ended_at": AT, "seconds": 12.0, "counts": {"ok": 1, "warning": 1, "unknown": 0, "critical": 2},
        "outcomes": [outcome], "findings": findings, "deliveries": [],
    }  # fmt: skip
    trend = {"host": "app1", "name": "cpu_percent", "points": [["2026-01-30T06:00:00Z", 40.0], [AT, 42.5]]}
    recent = [{"id": str(number), "started_at": AT, "status": "ok", "seconds": 9.0} for number in range(30)]
    message = {"contact": "DevOps Lead", "title": LONG, "body": LONG}
    alerts = {"messages": [message], "deliveries": [], "findings": []}
    proof = {"host": "app1", "set": "20260131T030000Z", "at": AT, "result": "passed", "reason": ""}
    drill = {**proof, "rto_seconds": 340.0, "rpo_seconds": 7200.0, "rpo_bytes": None, "details": {"note": LONG}}
    proofs = {"verifications": [{**proof, "level": level} for level in (1, 2, 3)], "drills": [drill]}
    return {"run": run, "recent_runs": recent, "trends": [trend], "alert": alerts, **proofs}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    role = {"name": "upkeep.ops.report"}
    variables = {"report_data": data(), "report_directory": str(folder)}
    run_tasks([{"name": "Render", "ansible.builtin.include_role": role, "vars": variables}])
    return folder / "20260131T060000Z-daily-1f2e.html"


def seen(page: Path, width: int) -> dict[str, Any]:
    """What the browser shows at a width in pixels."""
    assert CHROMIUM
    probe = page.with_name(f"probe-{width}.html")
    probe.write_text(_PROBE.format(page=page.name, width=width), encoding="utf-8")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
        f"--user-data-dir={page.parent / 'profile'}", "--window-size=1400,1000", "--virtual-time-budget=5000",
    ]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", probe.as_uri()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r"\{.*\}", done.stdout)
    assert found, f"the page did not load:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    answer: dict[str, Any] = json.loads(html.unescape(found[0]))
    return answer


@pytest.mark.parametrize("width", [1100, 360], ids=["screen", "phone"])
def test_it_fits_and_gives_the_verdict_first(page: Path, width: int) -> None:
    shown = seen(page, width)
    assert shown["overflow"] <= 0, "the page must not scroll sideways"
    assert shown["verdict"] == "Something is broken"
    assert 0 < shown["verdictTop"] < 100 < shown["findingTop"]
    assert shown["findings"] == 2, "the service is told under the cache that it depends on"
    assert shown["plots"] == 1
    proved = "can be restored: proved 2026-01-31 06:00 UTC by level 3; last drill 2026-01-31 06:00 UTC, RTO 5 min 40 s"
    assert shown["backups"] == proved
    assert f"app1: {proved}" in page.with_suffix(".md").read_text()
    monthly, before = shown["checklists"]
    assert monthly[:2] == [True, "Monthly <b>Checklist</b>, 2026-01 1 overdue 1 done"], "what is open comes first"
    assert monthly[2:6] == ["overdue", "Review <i>policies</i>", "nobody", "due since 2026-01-22"]
    assert monthly[6:] == ["done", "Training", "<script>Lead</script>2026-01-31 06:00 UTC", f"not needed: |{LONG}"]
    assert before[:2] == [False, "Pre, Release 42 1 done"]
    assert "| Pre, Release 42 | Review &lt;i>policies&lt;/i> | &lt;script>Lead" in page.with_suffix(".md").read_text()
    assert shown["loads"] == 0 and "url(" not in page.read_text(), "the page carries everything in itself"
