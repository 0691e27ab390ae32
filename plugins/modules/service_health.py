#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_health
short_description: Probe many services at once
version_added: 1.0.0
description:
  - Probes any number of services in one task, up to O(concurrency) at a time, and judges what they answer.
  - Each attempt stands under a total deadline, from the name look-up to the last byte. A server that sends one byte
    now and then, or a dead resolver, cannot stretch it.
  - What exceeds its latency limits beside other probes is timed again alone, for as long as this takes no more than
    ten seconds in all, so that the figures are those of the service and not of the crowd.
  - A failure whose O(probes[].depends_on) failed as well is told under that parent. It is probed all the same.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
attributes:
  check_mode:
    details: Probes alike in check mode, so commands and requests must be such that only look.
requirements:
  - requests >= 2.28 (Python library) for probes of type V(http) and V(https)
  - google-cloud-firestore >= 2.16 (Python library) for probes of type V(firestore)
notes:
  - A library that is missing makes the probes that need it V(unknown); the others are made.
  - Proxies of the environment are not used, and neither is C(.netrc).
options:
  concurrency:
    description: How many probes run at a time. More of them make every answer seem slower.
    type: int
    default: 20
  timeout:
    description: Seconds that one attempt may take in all, for probes that do not say so themselves.
    type: float
    default: 10
  probes:
    description: What to probe.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the probe, the subject of its finding. No two may have the same.
        type: str
        required: true
      type:
        description:
          - V(http) and V(https) send a request to O(probes[].url). With V(https) also every redirect must be encrypted.
          - V(tcp) wants a connection to be accepted, V(tls) a handshake to succeed with a certificate that is accepted.
          - V(redis) sends C(AUTH), when there is a password, and C(PING), to the master that O(probes[].sentinel_hosts)
            name, if there are any. A server that demands a password or is loading its data is alive, but not ready.
          - V(firestore) reads one document that need not exist.
          - V(process) wants the process of O(probes[].pid_file) or O(probes[].unit) to run.
          - V(command) wants O(probes[].argv) to end with the right return code.
        type: str
        choices: [http, https, tcp, tls, redis, firestore, process, command]
        default: http
      critical:
        description: Whether a failure is V(critical); else it is a V(warning).
        type: bool
        default: true
      depends_on:
        description: Names of probes without which this one cannot succeed.
        type: list
        elements: str
        default: []
      timeout:
        description: Seconds that one attempt may take in all. Without it O(timeout).
        type: float
      attempts:
        description: How many attempts may be made until one succeeds.
        type: int
        default: 1
      interval:
        description: Seconds between two attempts.
        type: float
        default: 1
      latency_warning_ms:
        description: Total milliseconds from which on a success is a V(warning).
        type: float
      latency_critical_ms:
        description: Total milliseconds from which on a success is as bad as a failure.
        type: float
      url:
        description: What to ask. Needed for V(http) and V(https). Must not hold credentials.
        type: str
      method:
        description: Method of the request.
        type: str
        default: GET
      headers:
        description: Headers of the request.
        type: dict
        default: {}
      secret_headers:
        description: Headers of the request whose values are secret. They are never shown or logged.
        type: dict
      body:
        description: Body of the request, as text. A dictionary or list is sent as JSON.
        type: raw
      username:
        description: User for the authentication, of HTTP or of a Redis ACL.
        type: str
      password:
        description: Password of O(probes[].username), or of the default user of Redis.
        type: str
      auth_scheme:
        description: How O(probes[].username) and O(probes[].password) are sent by HTTP.
        type: str
        choices: [basic, digest]
        default: basic
      token:
        description: Bearer token for HTTP.
        type: str
      status:
        description: Status codes that are right, single ones and ranges.
        type: list
        elements: str
        default: [200-299]
      regex:
        description: Regular expression that must match somewhere in the body of the answer or in the output.
        type: str
      json:
        description:
          - Values that the JSON answer must have, by their paths, such as V(status), V(checks[0].name) or
            V(checks['a.b']).
        type: dict
        default: {}
      max_bytes:
        description: How much of an answer or output is read. The rest is not looked at.
        type: int
        default: 65536
      follow_redirects:
        description: Whether the answer that a redirect leads to is judged, instead of the redirect itself.
        type: bool
        default: true
      max_redirects:
        description: How many redirects may follow each other.
        type: int
        default: 5
      host:
        description:
          - Name or address to connect to. Needed for V(tcp), V(tls) and V(redis) without O(probes[].unix_socket); for
            V(redis) O(probes[].sentinel_hosts) will do, too.
          - With V(http) it takes the place of the host in O(probes[].url) for the connection alone, as when one node
            behind a load balancer is probed.
        type: str
      port:
        description: Port to connect to, for V(redis) 6379 by default. With V(http) as O(probes[].host).
        type: int
      unix_socket:
        description: Path of a unix socket to connect to.
        type: path
      sentinel_hosts:
        description:
          - The Sentinels that know where the server of V(redis) is, each as C(host:port), port 26379 when there is
            none. They are asked in this order, each for its share of the time, until one answers.
          - They take the place of O(probes[].host), O(probes[].port) and O(probes[].unix_socket), and are reached with
            TLS when O(probes[].tls=true).
        type: list
        elements: str
      sentinel_master:
        description: The name by which the Sentinels know the master.
        type: str
        default: mymaster
      sentinel_user:
        description: ACL user of the Sentinels. That of the server is O(probes[].username).
        type: str
      sentinel_password:
        description: Password of the Sentinels. That of the server is O(probes[].password).
        type: str
      ip_version:
        description: Whether to connect by IPv4 or IPv6 only.
        type: str
        choices: [any, ipv4, ipv6]
        default: any
      tls:
        description: Whether to speak TLS with V(redis).
        type: bool
        default: false
      server_name:
        description: Name to ask for in the TLS handshake and to find in the certificate, by default the host.
        type: str
      validate_certs:
        description: Whether the certificate must be valid.
        type: bool
        default: true
      ca_certs:
        description: PEM file with the authorities to trust, instead of the system's.
        type: path
      client_cert_file:
        description: PEM file with the certificate to present to the server.
        type: path
      client_key_file:
        description: PEM file with the key of O(probes[].client_cert_file), unless that holds it.
        type: path
      certificate_warning_days:
        description: Days before the certificate expires from which on it is a V(warning).
        type: float
      certificate_critical_days:
        description: Days before the certificate expires from which on it is as bad as a failure.
        type: float
      project:
        description: Project of Firestore. Needed for V(firestore).
        type: str
      database:
        description: Database of Firestore.
        type: str
        default: (default)
      emulator_host:
        description:
          - Address of a Firestore emulator, as C(host:port). Production is not asked then.
          - The environment variable E(FIRESTORE_EMULATOR_HOST) does the same.
        type: str
      service_account_file:
        description: JSON key file of a service account for Firestore, instead of the host's default credentials.
        type: path
      pid_file:
        description:
          - File with the pid of the process, for V(process). A process that began after the file was written is
            another one that was given the same number.
        type: path
      unit:
        description: Name of a systemd unit, for V(process).
        type: str
      argv:
        description:
          - Command for V(command), as a list of words; no shell is in between. When the time is over it is killed with
            everything it started.
        type: list
        elements: str
      rc:
        description: Return codes of the command that are right.
        type: list
        elements: int
        default: [0]
seealso:
  - module: upkeep.ops.cert_expiry
"""

EXAMPLES = r"""
- name: Probe a service, the cache it needs and the site's gateway
  upkeep.ops.service_health:
    probes:
      - name: auth-service
        url: http://127.0.0.1:8080/api/auth-service/health
        json:
          status: UP
        latency_warning_ms: 500
        attempts: 3
        depends_on: [redis:cache]
      - name: redis:cache
        type: redis
        host: 127.0.0.1
        port: 6379
        password: "{{ redis_password }}"
      - name: gateway
        type: https
        url: https://www.example.org/
        status: [200-299, "401"]
        certificate_warning_days: 14

- name: See what would fail, and go on
  upkeep.ops.service_health:
    fail_on: never
    timeout: 2
    probes:
      - name: worker
        type: process
        pid_file: /run/worker.pid
      - name: queue
        type: command
        argv: [sh, -c, "echo the queue is empty"]
        regex: empty
        critical: false
  register: health
"""

RETURN = r"""
findings:
  description: One finding for each probe, the worst first.
  returned: always
  type: list
  elements: dict
  contains:
    check: {description: Always C(service_health)., type: str, returned: always}
    subject: {description: Name of the probe., type: str, returned: always}
    status: {description: "V(ok), V(warning), V(unknown) or V(critical).", type: str, returned: always}
    summary: {description: What was found., type: str, returned: always}
    hint: {description: What to do next., type: str, returned: always}
    value: {description: "Milliseconds of the last attempt, null for processes.", type: float, returned: always}
    unit: {description: "Unit of RV(findings[].value), V(ms).", type: str, returned: always}
    threshold: {description: "Limit that decided, null without one.", type: float, returned: always}
    parent: {description: Probe whose failure explains this one., type: str, returned: always}
    observed_at: {description: When it was found., type: str, returned: always}
    procedure: {description: Filled in by the run., type: str, returned: always}
    host: {description: Filled in by the run., type: str, returned: always}
  sample:
    - check: service_health
      subject: auth-service
      status: critical
      summary: answered 503 after 12 ms, expected 200-299
      hint: Look at the service's log, and at what it depends on
      value: 12.6
      unit: ms
      threshold: null
      parent: "redis:cache"
      observed_at: "2026-01-31T23:59:59Z"
      procedure: ""
      host: ""
status:
  description: The worst status of all findings.
  returned: always
  type: str
  sample: critical
summary:
  description: How many findings there are of each status.
  returned: always
  type: str
  sample: 1 critical, 6 ok
observations:
  description: Whether each thing that was probed was up, from which uptime is computed.
  returned: always
  type: list
  elements: dict
  contains:
    subject: {description: Name of the probe., type: str, returned: always}
    state:
      description: V(up) also when it was slow, V(down) when it did not answer as expected, else V(unknown).
      type: str
      returned: always
    at: {description: "When, RFC 3339 in UTC.", type: str, returned: always}
probes:
  description: What was measured, in the order of O(probes).
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Name of the probe., type: str, returned: always}
    type: {description: Type of the probe., type: str, returned: always}
    ok: {description: Whether it answered as expected., type: bool, returned: always}
    alive: {description: "Whether somebody was there, ready or not.", type: bool, returned: always}
    attempts: {description: How many attempts were made., type: int, returned: always}
    alone: {description: Whether it was timed again with no other probe beside it., type: bool, returned: always}
    error: {description: "What was wrong, empty when nothing was.", type: str, returned: always}
    address: {description: "Address or socket that was connected to, empty when none was.", type: str, returned: always}
    bytes_read: {description: How many bytes of the last answer were received., type: int, returned: always}
    redirects: {description: How many redirects were followed., type: int, returned: always}
    status_code: {description: Status of the answer., type: int, returned: when it answered by HTTP}
    certificate_expires: {description: When the certificate expires., type: str, returned: when there is one}
    phases:
      description: Milliseconds of the phases of the last attempt.
      type: dict
      returned: always
      contains:
        dns_ms: {description: Name look-ups., type: float, returned: when it came so far}
        connect_ms: {description: Connecting., type: float, returned: when it came so far}
        tls_ms: {description: TLS handshakes., type: float, returned: when it came so far}
        ttfb_ms: {description: From the start to the first byte., type: float, returned: when it came so far}
        total_ms: {description: From the start to the end., type: float, returned: always}
  sample:
    - name: auth-service
      type: http
      ok: false
      alive: true
      attempts: 3
      alone: false
      error: answered 503 after 12 ms, expected 200-299
      address: 127.0.0.1:8080
      bytes_read: 212
      redirects: 0
      status_code: 503
      phases: {dns_ms: 0.021, connect_ms: 0.094, ttfb_ms: 12.301, total_ms: 12.614}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._probe_connection import Connector
from ansible_collections.upkeep.ops.plugins.module_utils._probe_options import (
    PROBES_OPTION,
    as_written,
    probe_from_options,
    problems,
)
from ansible_collections.upkeep.ops.plugins.module_utils._probe_rounds import Runner, make_probers
from ansible_collections.upkeep.ops.plugins.module_utils._probe_verdict import details, findings, observations
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "probes": PROBES_OPTION,
            "concurrency": {"type": "int", "default": 20},
            "timeout": {"type": "float", "default": 10},
            "fail_on": FAIL_ON_OPTION,
        },
        supports_check_mode=True,
    )
    probes = [probe_from_options(options, module.params["timeout"]) for options in module.params["probes"]]
    wrong = problems(probes)
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    runner = Runner(make_probers(probes, Connector()), module.params["concurrency"])
    results = runner.run(probes)
    now = utc_now()
    exit_with_findings(
        module,
        findings(results, now),
        observations=observations(results, now),
        probes=[details(result) for result in results],
        invocation={"module_args": as_written(module.params)},
    )


if __name__ == "__main__":
    main()
