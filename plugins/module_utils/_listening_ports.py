# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening TCP ports, from the kernel's tables, and which of them should not be reachable."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._findings import FindingsBuilder

_LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket; ``process`` is empty when this user may not see it."""

    address: str
    port: int
    process: str
    pid: int

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        address = ip_address(self.address)
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return (mapped or address).is_loopback

    def as_dict(self) -> dict[str, Any]:
        """As the module returns it."""
        return {**asdict(self), "local": self.is_local}


def parse_ports(texts: Iterable[str]) -> list[range]:
    """Ports and ranges such as ``443`` and ``8080-8090``. Raises ValueError with the text that is neither."""
    ranges = []
    for text in texts:
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(text))
        first, last = (int(found.group(1)), int(found.group(2) or found.group(1))) if found else (0, 0)
        if not 0 < first <= last <= 65535:
            raise ValueError(f"{text!r} is neither a port such as 443 nor a range such as 8080-8090")
        ranges.append(range(first, last + 1))
    return ranges


def parse_table(text: str) -> list[tuple[str, int, int]]:
    """Address, port and inode of each listening socket in the text of /proc/net/tcp or tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            address, _colon, port = fields[1].partition(":")
            found.append((_address(address), int(port, 16), int(fields[9])))
    return found


def listeners(proc: str = "/proc") -> list[Listener]:
    """All listening TCP sockets of this network namespace, with their processes as far as they may be seen."""
    sockets: list[tuple[str, int, int]] = []
    with open(os.path.join(proc, "net/tcp"), encoding="ascii") as stream:
        sockets += parse_table(stream.read())
    with suppress(FileNotFoundError), open(os.path.join(proc, "net/tcp6"), encoding="ascii") as stream:
        sockets += parse_table(stream.read())  # not there when IPv6 is switched off
    owners = _owners(proc, {inode for _address, _port, inode in sockets})
    found = {Listener(address, port, *owners.get(inode, ("", 0))) for address, port, inode in sockets}
    return sorted(found, key=lambda each: (each.port, each.address, each.pid))


def judge_listeners(
    builder: FindingsBuilder,
    found: Sequence[Listener],
    allowed: Sequence[range] | None,
    local_only: Sequence[str],
    as_root: bool,
) -> None:
    """Findings about what others can reach: ports that are not allowed, and services that belong on loopback.

    ``local_only`` are ports and parts of process names. ``as_root`` says whether all processes could be looked into.
    """
    reachable = [each for each in found if not each.is_local]
    for (port, process), group in _by_service(reachable).items():
        subject = f"tcp/{port}" + (f" ({process})" if process else "")
        where = ", ".join(each.address for each in group)
        if any(name == str(port) or (name in process and not name.isdigit()) for name in local_only):
            told = f"it belongs on loopback and listens on {where}"
            builder.add("loopback_only", subject, "critical", told, value=where, hint="Bind it to 127.0.0.1")
        elif allowed is not None and not any(port in ports for ports in allowed):
            hint = "Stop it, bind it to 127.0.0.1, or add the port to allowed_ports"
            told = f"it listens on {where} and is not among the allowed ports"
            builder.add("unexpected_port", subject, "warning", told, value=port, hint=hint)
    settled = [port for ports in allowed or () for port in ports]
    nameless = sorted({each.port for each in reachable if not each.process}.difference(settled))
    _tell_ports(builder, found, reachable, nameless, as_root)


def _tell_ports(
    builder: FindingsBuilder,
    found: Sequence[Listener],
    reachable: Sequence[Listener],
    nameless: Sequence[int],
    as_root: bool,
) -> None:
    ports = sorted({each.port for each in reachable})
    told = f"{len({each.port for each in found})} TCP ports listen, others can reach " + (
        ", ".join(map(str, ports)) or "none"
    )
    hint = ""
    if nameless and as_root:  # the kernel's own, as those of NFS, or of a process outside of this container
        told += f"; no process seen here has {', '.join(map(str, nameless))}"
        hint = "Ask outside of this container: ss -ltnp. If it is right, as NFS is, add the port to allowed_ports"
    elif nameless:
        told += f"; whose {', '.join(map(str, nameless))} is, this user may not see"
        hint = "Run the task with become"
    builder.add(
        "listening_ports",
        "tcp",
        "unknown" if nameless else "ok",
        told,
        value=len(ports),
        unit="ports",
        hint=hint,
    )


def _by_service(found: Iterable[Listener]) -> Mapping[tuple[int, str], list[Listener]]:
    services: dict[tuple[int, str], list[Listener]] = {}
    for each in found:
        group = services.setdefault((each.port, each.process), [])
        if each.address not in [other.address for other in group]:
            group.append(each)
    return services


def _address(text: str) -> str:
    """An address as the kernel writes it: words of four bytes, each in the byte order of the host."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(socket.inet_ntop(socket.AF_INET6, packed)))


def _owners(proc: str, inodes: set[int]) -> dict[int, tuple[str, int]]:
    """Name and pid of the first process that holds each socket."""
    owners: dict[int, tuple[str, int]] = {}
    for name in sorted(filter(str.isdigit, os.listdir(proc)), key=int):
        folder = os.path.join(proc, name)
        # Processes end while one looks, and those of others may be hidden.
        with suppress(OSError):
            for descriptor in os.listdir(os.path.join(folder, "fd")):
                with suppress(OSError):
                    found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(os.path.join(folder, "fd", descriptor)))
                    if found and int(found.group(1)) in inodes and int(found.group(1)) not in owners:
                        owners[int(found.group(1))] = (_process_name(folder), int(name))
    return owners


def _process_name(folder: str) -> str:
    """The program's name; of an interpreter such as java or node with what it runs."""
    with open(os.path.join(folder, "cmdline"), "rb") as stream:
        words = [word.decode(errors="replace") for word in stream.read().split(b"\0") if word]
    with open(os.path.join(folder, "comm"), encoding="utf-8", errors="replace") as stream:
        name = stream.read().strip()
    if name.rstrip("0123456789.") not in ("java", "node", "python"):
        return name
    runs = next((word for word in words[1:] if word.endswith((".jar", ".js", ".mjs", ".cjs", ".py"))), "")
    return f"{name} {os.path.basename(runs)}".strip()
