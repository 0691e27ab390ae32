# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a module reaches a Redis server."""

    DOCUMENTATION = r"""
options:
  login_host:
    description: Name or address of the Redis server.
    type: str
    default: localhost
  login_port:
    description: TCP port of the Redis server.
    type: int
    default: 6379
  login_unix_socket:
    description: Path of the server's unix socket. Takes the place of O(login_host) and O(login_port).
    type: path
  login_user:
    description: ACL user. Without it the password is that of the default user.
    type: str
  login_password:
    description: Password. It is never written to a log, a result or a command line.
    type: str
  tls:
    description: Speak TLS.
    type: bool
    default: false
  validate_certs:
    description: Whether the server's certificate must be valid for O(login_host). Only with O(tls=true).
    type: bool
    default: true
  ca_certs:
    description: PEM file with the authorities to trust, instead of the system's.
    type: path
  client_cert_file:
    description: PEM file with the certificate to present to the server.
    type: path
  client_key_file:
    description: PEM file with the key of O(client_cert_file).
    type: path
  timeout:
    description: Seconds that one answer of the server may take.
    type: float
    default: 10
requirements:
  - redis >= 4.3 (Python library)
"""
