#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cert_expiry
short_description: Judges TLS certificates in files and on live servers
version_added: 1.0.0
description:
  - Reads certificates from files, folders, PEM bundles, DER, PKCS#12 and live servers, expired and untrusted ones too,
    and judges expiry, chain and trust, key and signature, host name, and whether a server serves what its file holds.
  - Each certificate gives the finding C(certificate_expiry), and when they are at fault C(certificate_trust) (its
    chain and who trusts it) and C(certificate_strength) (key and signature). Each endpoint gives C(certificate_name),
    and C(certificate_served) when it names its file. What cannot be read gives C(certificate_expiry) with status
    C(unknown).
  - "Expiry is judged by the lifetime: a warning at 25 percent left and critical at 10 percent, a lifetime above 90 days
    counting as 90. Renewal is due at a third of the lifetime, 30 days before the end at the earliest, and at half of
    it when the lifetime is below 10 days."
  - A fault other than expiry is critical on a live server and a warning in a file.
  - A file whose certificates are all authorities is a bundle, and each of them is judged. In other files the first
    certificate is the server's and the others are its chain.
  - In folders, certbot's C(cert.pem) and C(chain.pem) beside a C(fullchain.pem) count as parts of it. Private keys are
    passed over and not opened, or recognized and not read. Only a PKCS#12 container must be opened as a whole.
  - Revocation is not looked at, and name constraints of authorities are not judged in files (trust is C(unknown)).
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
  - upkeep.ops._attributes.reads_only
  - upkeep.ops._checks
options:
  paths:
    description:
      - Files, folders (with the folders in them) and patterns.
      - A file that is named must hold a certificate. What else lies in a folder is passed over.
    type: list
    elements: path
    default: []
  endpoints:
    description: TLS servers.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name or address to connect to.
        type: str
        required: true
      port:
        description: TCP port. By default 443, or 25, 143 and 5432 with O(endpoints[].starttls).
        type: int
      server_name:
        description: Name to ask for (SNI) and to find in the certificate. By default O(endpoints[].host).
        type: str
      starttls:
        description: Protocol in which to ask for TLS first.
        type: str
        choices: [smtp, imap, postgres]
      file:
        description: File with the certificate that should be served.
        type: path
      ca_certs:
        description: Takes the place of O(ca_certs) for this server.
        type: path
      timeout:
        description: Takes the place of O(timeout) for this server.
        type: float
  ca_certs:
    description: PEM file with the authorities to trust, instead of the system's.
    type: path
  warning:
    description:
      - Time left at which a certificate is a warning, as a duration such as V(21d) or a share of its whole lifetime
        such as V(25%). Without it the rule above holds.
    type: str
  critical:
    description: Time left at which a certificate is critical, written as O(warning) is.
    type: str
  timeout:
    description: Seconds that all of one server may take, from the name look-up to the last handshake.
    type: float
    default: 10
  concurrency:
    description: How many servers are asked at the same time.
    type: int
    default: 20
  passphrase:
    description: Passphrase of PKCS#12 containers.
    type: str
requirements:
  - cryptography >= 38 (Python library)
notes:
  - Python 3.9 shows only the leaf of what a server sends. There the order of the chain is not judged, and a missing
    intermediate is told as an issuer that is not trusted.
"""

EXAMPLES = r"""
- name: Judge the certificates of this host, and that nginx serves the renewed one
  upkeep.ops.cert_expiry:
    paths:
      - /etc/letsencrypt/live
    endpoints:
      - host: www.example.org
        port: 443
        file: /etc/letsencrypt/live/www.example.org/fullchain.pem

- name: Judge internal servers by the authority of the house, and fail on warnings
  upkeep.ops.cert_expiry:
    endpoints:
      - host: mail.example.org
        port: 25
        starttls: smtp
      - host: 192.0.2.10
        port: 5432
        server_name: db.example.org
        starttls: postgres
        timeout: 3
    ca_certs: /etc/ssl/house-ca.pem
    warning: 21d
    critical: 5d
    fail_on: warning
"""

RETURN = r"""
certificates:
  description: Each certificate that was judged.
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: Path of the file, or C(host:port).
      type: str
    subject:
      description: Distinguished name.
      type: str
    names:
      description: Host names and addresses it is for.
      type: list
      elements: str
    issuer:
      description: Distinguished name of its issuer.
      type: str
    serial:
      description: Serial number in hexadecimal, as C(openssl x509 -serial) prints it.
      type: str
    not_before:
      description: First moment of validity, RFC 3339 in UTC.
      type: str
    not_after:
      description: Last moment of validity.
      type: str
    lifetime_days:
      description: Days between the two.
      type: float
    days_left:
      description: Days until it expires; negative when it has.
      type: float
    renewal_due_at:
      description: When its renewal is due.
      type: str
    key:
      description: Kind and size of its key.
      type: str
      sample: EC secp256r1
    signature:
      description: Algorithm of its signature.
      type: str
      sample: ecdsa-with-SHA256
    chain:
      description: Distinguished names of the certificates that came with it.
      type: list
      elements: str
    trust:
      description:
        - C(trusted), C(self_signed), C(incomplete) (its issuer is missing), C(untrusted) or C(unknown).
        - C(authority) for those of a bundle.
      type: str
findings:
  description: What was found, worst first.
  returned: always
  type: list
  elements: dict
status:
  description: The worst status of the findings.
  returned: always
  type: str
summary:
  description: Number of findings of each status.
  returned: always
  type: str
"""

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_files import find_files, read_file
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_judge import CertificateJudge, Limits, check_limit
from ansible_collections.upkeep.ops.plugins.module_utils._certificate_trust import TrustStore, load_trust_store
from ansible_collections.upkeep.ops.plugins.module_utils._certificates import CertificateError
from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import MissingDependencyError, load
from ansible_collections.upkeep.ops.plugins.module_utils._module import FAIL_ON_OPTION, exit_with_findings
from ansible_collections.upkeep.ops.plugins.module_utils._time import utc_now
from ansible_collections.upkeep.ops.plugins.module_utils._tls_peer import Endpoint, PeerError, Served, fetch

_PORTS = {None: 443, "smtp": 25, "imap": 143, "postgres": 5432}

ARGUMENT_SPEC: dict[str, Any] = {
    "paths": {"type": "list", "elements": "path", "default": []},
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "server_name": {"type": "str"},
            "starttls": {"type": "str", "choices": ["smtp", "imap", "postgres"]},
            "file": {"type": "path"},
            "ca_certs": {"type": "path"},
            "timeout": {"type": "float"},
        },
    },
    "ca_certs": {"type": "path"},
    "warning": {"type": "str"},
    "critical": {"type": "str"},
    "timeout": {"type": "float", "default": 10},
    "concurrency": {"type": "int", "default": 20},
    "passphrase": {"type": "str", "no_log": True},
    "fail_on": FAIL_ON_OPTION,
}


def trust_store(ca_certs: str | None) -> TrustStore | CertificateError:
    """The authorities to trust, or why there are none."""
    try:
        return load_trust_store(ca_certs)
    except CertificateError as error:
        return CertificateError(f"{ca_certs or 'the system'}: {error}", error.hint)
    except OSError as error:
        return CertificateError(f"{error.filename}: {error.strerror}", "Correct ca_certs")


def endpoint_of(options: dict[str, Any], params: dict[str, Any]) -> Endpoint:
    """An endpoint with the defaults of the module."""
    return Endpoint(
        host=options["host"],
        port=options["port"] or _PORTS[options["starttls"]],
        server_name=options["server_name"] or options["host"],
        starttls=options["starttls"] or "",
        ca_certs=options["ca_certs"] or params["ca_certs"] or "",
        timeout=params["timeout"] if options["timeout"] is None else options["timeout"],
    )


def fetched(endpoint: Endpoint) -> Served | PeerError:
    """What a server presents, or why that is not known."""
    try:
        return fetch(endpoint)
    except PeerError as error:
        return error


def judged(params: dict[str, Any]) -> CertificateJudge:
    """Everything that was asked for, judged at one moment."""
    endpoints = [endpoint_of(options, params) for options in params["endpoints"]]
    with ThreadPoolExecutor(max_workers=max(1, params["concurrency"])) as pool:
        answers = list(pool.map(fetched, endpoints))
    judge = CertificateJudge(utc_now(), Limits(params["warning"], params["critical"]))
    if params["paths"]:
        store = trust_store(params["ca_certs"])
        for file in find_files(params["paths"], params["passphrase"]):
            judge.file(file, store)
    for options, endpoint, answer in zip(params["endpoints"], endpoints, answers):
        expected = read_file(options["file"], params["passphrase"]) if options["file"] else None
        judge.endpoint(endpoint, answer, expected)
    return judge


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        load("cryptography")
        check_limit(module.params["warning"])
        check_limit(module.params["critical"])
        # Thousands of small objects that all live to the end: to look for garbage among them is a tenth of the time.
        gc.disable()
        judge = judged(module.params)
        # Nor is it worth while at the end of the process.
        gc.freeze()
    except (MissingDependencyError, ValueError) as error:
        module.fail_json(msg=str(error))
    exit_with_findings(module, judge.findings, certificates=judge.certificates)


if __name__ == "__main__":
    main()
