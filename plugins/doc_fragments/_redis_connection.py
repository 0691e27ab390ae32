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

    # Use beside the first for modules that can find the server by Sentinel.
    SENTINEL = r"""
options:
  sentinel_hosts:
    description:
      - The Sentinels that know where the server is, each as C(host:port), port 26379 when there is none. They are asked
        in this order until one answers. They take the place of O(login_host), O(login_port) and O(login_unix_socket).
      - They are reached with TLS and the certificates of this task when O(tls=true).
    type: list
    elements: str
    default: []
  sentinel_master:
    description: The name by which the Sentinels know the master.
    type: str
    default: mymaster
  sentinel_user:
    description: ACL user of the Sentinels. That of the servers is O(login_user).
    type: str
  sentinel_password:
    description: Password of the Sentinels. That of the servers is O(login_password).
    type: str
"""
