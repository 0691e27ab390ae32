# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps a recovery has, which of them are left after a run was killed, and which lead back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._time import parse_time

#: Of a service what the module service_control knows.
_CONTROLLED = ("name", "runner", "stop_timeout", "start_timeout", "settle")
_RESTORES = ("redis", "firestore")
Step = dict[str, str]


def forward(parts: Sequence[str], gateways: bool, services: bool) -> list[Step]:
    """The steps of a recovery of ``parts``, with those that ``gateways`` and ``services`` make needed.

    Redis keeps a safety snapshot of its own, which holds each write until its data is replaced. Of Firestore only the
    safety set does, so that is taken when nobody writes any more.
    """
    safety = _step("safety_set", "", "safety set")
    late = any(part.startswith("firestore:") for part in parts)
    steps = [] if late else [safety]
    steps += [_step("maintenance", "on", "maintenance on")] if gateways else []
    steps += [_step("services", "stopped", "services stopped")] if services else []
    steps += [safety] if late else []
    steps += [_step(part.partition(":")[0], "restored", f"restore {part}", part) for part in parts]
    if services:
        steps += [_step("services", "started", "services started"), _step("health", "", "services checked")]
    return [*steps, *([_step("maintenance", "off", "maintenance off")] if gateways else [])]


def left(steps: Sequence[Mapping[str, Any]], entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps that have not ended yet; ``again`` says that one was begun."""
    known = list(entries)
    ended, begun = _names(known, "forward", "ended"), _names(known, "forward", "begun")
    return [{**step, "again": step["name"] in begun} for step in steps if step["name"] not in ended]


def back(steps: Sequence[Mapping[str, Any]], entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps that take back what was begun, but for those that have ended."""
    known = list(entries)
    begun, ended = _names(known, "forward", "begun"), _names(known, "back", "ended")
    done = [step for step in steps if step["name"] in begun]
    replaced = [step for step in done if step["act"] in _RESTORES]
    stopped = any(step["act"] == "services" for step in done)
    way = [_step("services", "stopped", "stop services again")] if stopped and replaced else []
    way += [_step(step["act"], "rolled_back", f"take back {step['part']}", step["part"]) for step in reversed(replaced)]
    if stopped:
        way += [_step("services", "started", "start services again"), _step("health", "", "check services again")]
    if any(step["act"] == "maintenance" for step in done):
        way.append(_step("maintenance", "off", "end maintenance again"))
    return [{**step, "again": True} for step in way if step["name"] not in ended]


def figures(recovery: Mapping[str, Any]) -> dict[str, float]:
    """Seconds: the recovery in all, how long the platform was held, and how much older the data is.

    It is held from the moment at which it was closed, or without gateways the first thing was touched.
    """
    entries, plan = recovery["entries"], recovery["plan"]
    if not recovery["ended_at"] or not entries:
        return {}
    last = parse_time(entries[-1]["at"])
    told = {"rto_seconds": (last - parse_time(recovery["begun_at"])).total_seconds()}
    closed = [entry for entry in entries if (entry["step"], entry["phase"]) == ("maintenance on", "ended")]
    touched = [entry for entry in entries if entry["step"] != "safety set" and entry["phase"] == "begun"]
    if touched:
        held = parse_time((closed or touched)[0]["at"])
        told["downtime_seconds"] = (last - held).total_seconds()
        told["rpo_seconds"] = (held - parse_time(plan["set_at"])).total_seconds()
    return told


def batches(
    services: Sequence[Mapping[str, Any]], parts: Sequence[str], everywhere: Sequence[str], names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Services that use ``parts`` (or are named) by host, in the order in which they start.

    ``everywhere`` are the hosts of those that name none. Raises ValueError when services depend on each other in a
    circle, or a name is not known.
    """
    known, chosen = _chosen(services, parts, names)
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for name in chosen:
        service = known[name]
        if service.get("runner"):
            told = {key: service[key] for key in _CONTROLLED if key in service}
            for host in service.get("hosts") or everywhere:
                found.setdefault((_level(name, known, ()), str(host)), []).append(told)
    return [{"host": host, "services": found[level, host]} for level, host in sorted(found)]


def left_out(
    services: Sequence[Mapping[str, Any]], parts: Sequence[str], everywhere: Sequence[str], names: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Of the services that :func:`batches` looks at: those that nobody can stop, and those that are not asked.

    What is not stopped is not asked either, and is not among the latter.
    """
    known, chosen = _chosen(services, parts, names)
    stopped = [name for name in chosen if known[name].get("runner") and (known[name].get("hosts") or everywhere)]
    asked = [name for name in stopped if known[name].get("ready", known[name].get("health"))]
    return [name for name in chosen if name not in stopped], [name for name in stopped if name not in asked]


def _chosen(
    services: Sequence[Mapping[str, Any]], parts: Sequence[str], names: Sequence[str]
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """The services by name, and those that use ``parts`` or are named, as the catalogue lists them."""
    known = {str(service["name"]): service for service in services}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"the catalogue knows no service {', '.join(unknown)}")
    chosen = set(names) or {name for name in known if _uses(name, known, set(parts), ())}
    return known, [name for name in known if name in chosen]


def _uses(name: str, known: Mapping[str, Mapping[str, Any]], parts: set[str], above: tuple[str, ...]) -> bool:
    """Whether a service depends on one of the parts, itself or through others."""
    needs = known[name].get("depends_on") or []
    others = [each for each in needs if each in known and each not in above]
    return not parts.isdisjoint(needs) or any(_uses(each, known, parts, (*above, name)) for each in others)


def _level(name: str, known: Mapping[str, Mapping[str, Any]], above: tuple[str, ...]) -> int:
    if name in above:
        raise ValueError(f"services depend on each other in a circle: {' -> '.join((*above, name))}")
    needs = [each for each in known[name].get("depends_on") or [] if each in known]
    return 1 + max((_level(each, known, (*above, name)) for each in needs), default=0)


def _step(act: str, to: str, name: str, part: str = "") -> Step:
    return {"name": name, "act": act, "to": to, "part": part}


def _names(entries: Iterable[Mapping[str, Any]], direction: str, phase: str) -> set[str]:
    return {entry["step"] for entry in entries if (entry["direction"], entry["phase"]) == (direction, phase)}
