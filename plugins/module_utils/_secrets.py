# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets in project folders: what a scanner finds in their files, told without ever telling the secret.

A scanner is gitleaks or detect-secrets; rules of our own are added to either for what both miss. Of a secret only
its file, line, kind and a short fingerprint leave this module.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder
from ansible_collections.upkeep.ops.plugins.module_utils._programs import ProgramError, Runner

#: What the rules of our own look for; each has one group, the secret.
_RULES = (
    ("Redis password", re.compile(r"^\s*(?:requirepass|masterauth)\s+[\"']?([^\s\"']+)")),
    ("Redis ACL password", re.compile(r"^\s*user\s+\S+\s.*?>([^\s\"']+)")),
    ("Redis password in a command", re.compile(r"\bredis-cli\b.*?\s(?:-a|--pass)[ =][\"']?([^\s\"']+)")),
    (
        "Password in a curl command",
        re.compile(r"\bcurl\b.*?\s(?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"'$]+:([^\s\"']+)"),
    ),
)
#: What stands where a secret would, when it comes from elsewhere: $VAR, {{ var }}, <password>, %s, ****.
_PLACEHOLDER = re.compile(r"[$<{%*]|x{4,}$", re.IGNORECASE)
_ALLOWED_HERE = ("pragma: allowlist secret", "gitleaks:allow")

#: Kinds of detect-secrets that are no secrets of their own.
_NOT_SECRET = ("IPPublicDetector",)
_BINARY_SAMPLE = 8192


class ScannerError(Exception):
    """A scanner did not do its work; the text says why."""


@dataclass(frozen=True)
class Secret:
    """Where a secret is. ``path`` is relative to the folder that was scanned."""

    path: str
    line: int
    kind: str
    fingerprint: str


@dataclass(frozen=True)
class Leak:
    """What a scanner found, with the secret itself: it stays inside this module."""

    path: str
    line: int
    kind: str
    secret: str = field(repr=False)


@dataclass
class Tree:
    """The files of a folder that are to be read, and those that are not."""

    root: str
    files: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scanner:
    """``scan`` takes a tree and returns the leaks in it; it raises ScannerError."""

    name: str
    scan: Callable[[Tree], list[Leak]]


def list_files(root: str, exclude: Sequence[str], max_size: int) -> Tree:
    """The text files under a folder (or the one file), without links and without what the patterns exclude.

    A pattern is compared with the name of each file and folder, and with the path relative to ``root``.
    Raises OSError when the folder cannot be listed.
    """
    tree = Tree(root)
    if os.path.isfile(root):
        _sort_in(tree, root, max_size)
        return tree
    os.scandir(root).close()
    for parent, folders, names in os.walk(root, onerror=lambda error: tree.unreadable.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if not _excluded(root, parent, name, exclude))
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not _excluded(root, parent, name, exclude) and os.path.isfile(path) and not os.path.islink(path):
                _sort_in(tree, path, max_size)
    return tree


def own_rules(tree: Tree) -> list[Leak]:
    """What our own rules find."""
    leaks: list[Leak] = []
    for path in tree.files:
        try:
            leaks.extend(_leaks_in(path))
        except OSError:  # it is gone, or its disk is failing, since the files were listed
            tree.unreadable.append(path)
    return leaks


def detect_secrets_scanner() -> Scanner:
    """The scanner of the library detect-secrets. Raises MissingDependencyError."""
    library = load("detect_secrets")
    settings = load("detect_secrets", "settings")

    def scan(tree: Tree) -> list[Leak]:
        with settings.default_settings():
            settings.get_settings().disable_plugins(*_NOT_SECRET)
            collection = library.SecretsCollection()
            for path in tree.files:
                collection.scan_file(path)
            return [Leak(path, found.line_number, found.type, found.secret_value or "") for path, found in collection]

    return Scanner("detect-secrets", scan)


def gitleaks_scanner(program: str, run: Runner, timeout: float) -> Scanner:
    """The scanner of the program gitleaks; ``timeout`` in seconds is for one folder."""

    def scan(tree: Tree) -> list[Leak]:
        # Secrets are in its report, so that it is written where only this user can look, and removed at once.
        with tempfile.TemporaryDirectory(prefix="upkeep-") as folder:
            report = os.path.join(folder, "report.json")
            try:
                ended = run([*_gitleaks_command(program, run, tree.root), "--report-path", report], timeout)
            except ProgramError as error:
                raise ScannerError(str(error)) from error
            if ended.rc != 0:
                raise ScannerError(f"gitleaks failed: {ended.complaint}")
            wanted = set(tree.files)
            return [leak for leak in _read_gitleaks(report) if leak.path in wanted]

    return Scanner("gitleaks", scan)


def judge_tree(builder: FindingsBuilder, tree: Tree, scanner: Scanner | str, allowed: Iterable[str]) -> list[Secret]:
    """Scan a folder; ``scanner`` is the reason when there is none. Adds findings and returns the secrets."""
    leaks, reason = own_rules(tree), scanner if isinstance(scanner, str) else ""
    if isinstance(scanner, Scanner):
        try:
            leaks = scanner.scan(tree) + leaks
        except ScannerError as error:
            reason = str(error)
    secrets = _without_allowed(tree, leaks, frozenset(allowed))
    for secret in secrets:
        builder.add(
            "secret_in_file",
            f"{os.path.join(tree.root, secret.path) if secret.path else tree.root} {secret.fingerprint}",
            "critical",
            f"{secret.kind} in line {secret.line}",
            value=secret.fingerprint,
            hint="Revoke it and take it out; if it is no secret, add the fingerprint to allowed",
        )
    _tell_scan(builder, tree, reason, _name_of(scanner), len(secrets))
    return secrets


def read_baseline(path: str) -> list[str]:
    """Fingerprints in a file, one in a line; the rest of a line after a blank, and lines with #, are comments."""
    with open(path, encoding="utf-8") as stream:
        return [line.split()[0] for line in stream if line.strip() and not line.lstrip().startswith("#")]


def fingerprint(path: str, secret: str) -> str:
    """Twelve hexadecimal digits that stand for a secret in a file: the same wherever in it the secret moves."""
    return hashlib.sha256(f"{path}\0{secret}".encode(errors="surrogateescape")).hexdigest()[:12]


def _name_of(scanner: Scanner | str) -> str:
    return scanner.name if isinstance(scanner, Scanner) else "no scanner"


def _tell_scan(builder: FindingsBuilder, tree: Tree, reason: str, scanner: str, count: int) -> None:
    """The finding about the scan itself: ok only when everything was read by a scanner."""
    missed = [f"{len(tree.unreadable)} could not be read"] if tree.unreadable else []
    missed += [f"{len(tree.too_large)} are too large"] if tree.too_large else []
    told = f"{len(tree.files)} files read by {scanner}, {count} secrets found"
    hint = "Run the task with become" if tree.unreadable else ""
    if reason:
        hint = "Install gitleaks, or the Python library detect-secrets, or run it by hand to see why it fails"
    builder.add(
        "secret_scan",
        tree.root,
        "unknown" if reason or tree.unreadable else "ok",
        "; ".join([*([f"not scanned for all kinds of secrets: {reason}"] if reason else []), told, *missed]),
        value=count,
        unit="secrets",
        hint=hint,
    )


def _without_allowed(tree: Tree, leaks: Iterable[Leak], allowed: frozenset[str]) -> list[Secret]:
    """One secret for each line, in the order of files and lines, without those that are allowed."""
    found: dict[tuple[str, int], Secret] = {}
    for leak in leaks:
        relative = "" if leak.path == tree.root else os.path.relpath(leak.path, tree.root)
        mark = fingerprint(relative or os.path.basename(tree.root), leak.secret)
        found.setdefault((leak.path, leak.line), Secret(relative, leak.line, leak.kind, mark))
    return [secret for _place, secret in sorted(found.items()) if secret.fingerprint not in allowed]


def _excluded(root: str, parent: str, name: str, patterns: Sequence[str]) -> bool:
    relative = os.path.relpath(os.path.join(parent, name), root)
    return any(fnmatch.fnmatchcase(each, pattern) for pattern in patterns for each in (name, relative))


def _sort_in(tree: Tree, path: str, max_size: int) -> None:
    try:
        if os.path.getsize(path) > max_size:
            tree.too_large.append(path)
            return
        with open(path, "rb") as stream:
            if b"\0" not in stream.read(_BINARY_SAMPLE):
                tree.files.append(path)
    except OSError:
        tree.unreadable.append(path)


def _leaks_in(path: str) -> Iterator[Leak]:
    with open(path, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            if any(mark in line for mark in _ALLOWED_HERE):
                continue
            for kind, rule in _RULES:
                found = rule.search(line)
                if found and not _PLACEHOLDER.match(found.group(1)):
                    yield Leak(path, number, kind, found.group(1))


def _gitleaks_command(program: str, run: Runner, root: str) -> list[str]:
    """From 8.19 on a folder is scanned by ``dir``, before that by ``detect --no-git``."""
    version = [int(part) for part in re.findall(r"\d+", run([program, "version"], 10).stdout)[:2]]
    scan = ["dir", root] if version >= [8, 19] else ["detect", "--no-git", "--source", root]
    return [program, *scan, "--no-banner", "--exit-code", "0", "--report-format", "json"]


def _read_gitleaks(report: str) -> list[Leak]:
    try:
        with open(report, encoding="utf-8") as stream:
            entries = json.load(stream)
        return [Leak(each["File"], each["StartLine"], each["RuleID"], each["Secret"]) for each in entries or []]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScannerError(f"the report of gitleaks cannot be read: {type(error).__name__}") from error


#: Where a secret stands in a line of a log, beside what the rules above know; the group is the secret.
_IN_LINES = (
    re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:([^\s/@]+)@", re.IGNORECASE),
    re.compile(r"\b(?:bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE),
    re.compile(
        r"(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|credentials?|authorization)"
        r"[\"']?\s*[=:]\s*[\"']?(?!bearer\b|basic\b)([^\s\"',;&}]+)",
        re.IGNORECASE,
    ),
    re.compile(r"\b(eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+)"),
    re.compile(r"\b(AKIA[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{30,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})"),
)


def masked_line(line: str) -> str:
    """A line of a log with ``***`` in place of everything in it that may be a secret."""
    for rule in (*(rule for _kind, rule in _RULES), *_IN_LINES):
        line = rule.sub(_mask, line)
    return line


def _mask(found: re.Match[str]) -> str:
    begin, end = found.start(1) - found.start(), found.end(1) - found.start()
    return f"{found.group()[:begin]}***{found.group()[end:]}"
