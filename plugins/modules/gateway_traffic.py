#!/usr/bin/python
# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_traffic
short_description: Say which traffic the nginx in front lets through
version_added: 1.0.0
description:
  - Takes a server out of a service and puts it back, isolates a service, redirects it to other servers, and closes the
    whole platform for maintenance. Each of these is undone by V(open) or V(in) of O(state).
  - Isolation and maintenance are flag files that nginx looks at with each request, so that they work at once and need
    no reload. Requests get 503 with C(Retry-After) and a body in JSON.
  - What needs a reload is tested by C(nginx -t) first. A reload counts once new workers serve and all old ones have
    stopped taking connections; else the files are put back as they were, and nginx with them.
  - "O(state=installed) makes the folder that all this lives in. Two lines of the site's own configuration use it:
    C(include <folder>/server.conf;) in the server block, and C(include <folder>/upstreams/<service>.conf;) in the
    upstream block of each service, in place of its servers."
notes:
  - A service in another nginx configuration file is found by O(service_path), whose first group is its name.
  - With O(bypass_token) requests that carry it in the header C(X-Upkeep-Bypass) pass everything that is closed, so that
    services can be checked through the gateway before it is opened again.
  - A request with the header C(X-Upkeep-Rehearse) is answered as if everything were closed, so that it can be told
    beforehand who would pass.
author: The upkeep.ops authors (@upkeep-ops)
extends_documentation_fragment:
  - upkeep.ops._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  folder:
    description: Folder of the flags and upstreams. The workers of nginx must be able to enter it.
    type: path
    default: /etc/nginx/upkeep
  state:
    description:
      - V(read) only returns how things are.
      - V(installed) makes the folder for O(services). Servers that are out stay out.
      - V(out) takes O(server) out of O(service) and waits until its last requests have ended. The last server of a
        service is never taken out. V(in) puts it back.
      - V(isolated) closes O(service). V(redirected) sends its requests to O(fallback).
      - V(maintenance) closes everything but O(open_path).
      - V(open) ends isolation and redirection of O(service), with all its servers in but O(keep_out); without
        O(service) it ends the maintenance.
    type: str
    choices: [read, installed, out, in, isolated, redirected, maintenance, open]
    default: read
  service:
    description: Name of the service.
    type: str
  server:
    description: Address of the server, as it is named in O(services[].servers).
    type: str
  fallback:
    description: Addresses of the servers that take the requests of O(service).
    type: list
    elements: str
    default: []
  keep_out:
    description: Addresses of servers of O(service) that stay out when it is opened.
    type: list
    elements: str
    default: []
  services:
    description: The services behind the gateway, for V(installed) and V(open) of O(state).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      servers:
        description: Addresses of its servers, such as V(app1:8081).
        type: list
        elements: str
        required: true
  retry_after:
    description: Seconds after which clients may try again.
    type: int
    default: 300
  notice:
    description: What clients are told meanwhile.
    type: str
    default: The service is closed for maintenance. Please try again later.
  service_path:
    description: Pattern that finds the name of the service in the path of a request.
    type: str
    default: ^/api/([A-Za-z0-9._-]+)/
  open_path:
    description: Pattern of the paths that are never closed.
    type: str
    default: ^/status(/|$)
  bypass_token:
    description: Secret of at least 16 characters with which requests pass what is closed.
    type: str
  drain_timeout:
    description: Seconds that O(state=out) waits for the last requests.
    type: float
    default: 60
  nginx_command:
    description: nginx with the options that name its configuration.
    type: list
    elements: str
    default: [nginx]
  pid_file:
    description: Pid file of the master process.
    type: path
    default: /run/nginx.pid
"""

EXAMPLES = r"""
- name: Make the folder that flags and upstreams live in
  upkeep.ops.gateway_traffic:
    state: installed
    folder: /etc/nginx/upkeep
    services:
      - name: auth-service
        servers: [app1:8081, app2:8081]

- name: Take one server out, and wait for its last requests
  upkeep.ops.gateway_traffic:
    state: out
    folder: /etc/nginx/upkeep
    service: auth-service
    server: app1:8081
    drain_timeout: 30

- name: Put it back
  upkeep.ops.gateway_traffic:
    state: in
    folder: /etc/nginx/upkeep
    service: auth-service
    server: app1:8081

- name: Close everything
  upkeep.ops.gateway_traffic:
    state: maintenance
    folder: /etc/nginx/upkeep

- name: Open again
  upkeep.ops.gateway_traffic:
    state: open
    folder: /etc/nginx/upkeep
"""

RETURN = r"""
msg:
  description: What was done, or what is wrong.
  returned: always
  type: str
installed:
  description: Whether the folder was made by V(installed) of O(state), without which no flag closes anything.
  returned: success
  type: bool
maintenance:
  description: Whether everything is closed.
  returned: success
  type: bool
services:
  description:
    - By name of the service whether it is C(isolated), whether its requests go to a C(fallback), and its C(servers),
      each with C(address) and C(down).
  returned: success
  type: dict
reloaded:
  description: Whether nginx was reloaded, or would be.
  returned: success
  type: bool
drained:
  description: Whether the last requests of the old workers ended in time; null when nobody waited for them.
  returned: success
  type: bool
"""

import os
import time
from contextlib import nullcontext
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.upkeep.ops.plugins.module_utils._gateway_traffic import Layout, Plan, Traffic, TrafficError
from ansible_collections.upkeep.ops.plugins.module_utils._lock import LockError, mutex
from ansible_collections.upkeep.ops.plugins.module_utils._nginx import Nginx, NginxError
from ansible_collections.upkeep.ops.plugins.module_utils._programs import run_program

_SERVICE = {"name": {"type": "str", "required": True}, "servers": {"type": "list", "elements": "str", "required": True}}
_ARGUMENTS = {
    "folder": {"type": "path", "default": "/etc/nginx/upkeep"},
    "state": {
        "type": "str",
        "choices": ["read", "installed", "out", "in", "isolated", "redirected", "maintenance", "open"],
        "default": "read",
    },
    "service": {"type": "str"},
    "server": {"type": "str"},
    "fallback": {"type": "list", "elements": "str", "default": []},
    "keep_out": {"type": "list", "elements": "str", "default": []},
    "services": {"type": "list", "elements": "dict", "default": [], "options": _SERVICE},
    "retry_after": {"type": "int", "default": 300},
    "notice": {"type": "str", "default": "The service is closed for maintenance. Please try again later."},
    "service_path": {"type": "str", "default": "^/api/([A-Za-z0-9._-]+)/"},
    "open_path": {"type": "str", "default": "^/status(/|$)"},
    "bypass_token": {"type": "str", "no_log": True},
    "drain_timeout": {"type": "float", "default": 60},
    "nginx_command": {"type": "list", "elements": "str", "default": ["nginx"]},
    "pid_file": {"type": "path", "default": "/run/nginx.pid"},
}
_REQUIRED_IF = [
    ("state", "installed", ("services",)),
    ("state", "out", ("service", "server")),
    ("state", "in", ("service", "server")),
    ("state", "isolated", ("service",)),
    ("state", "redirected", ("service", "fallback")),
]


def planned(traffic: Traffic, params: dict[str, Any]) -> Plan:
    """What the wanted state changes. Raises TrafficError."""
    servers = {service["name"]: service["servers"] for service in params["services"]}
    service, server = params["service"] or "", params["server"] or ""
    layout = Layout(
        params["retry_after"],
        params["service_path"],
        params["open_path"],
        params["notice"],
        params["bypass_token"] or "",
    )
    plans = {
        "read": Plan,
        "installed": lambda: traffic.install(layout, servers),
        "out": lambda: traffic.take_out(service, server),
        "in": lambda: traffic.put_back(service, server),
        "isolated": lambda: traffic.isolate(service),
        "redirected": lambda: traffic.redirect(service, params["fallback"]),
        "maintenance": lambda: traffic.set_maintenance(True),
        "open": lambda: (
            traffic.open(service, servers.get(service, ()), params["keep_out"])
            if service
            else traffic.set_maintenance(False)
        ),
    }
    return plans[params["state"]]()


def carry_out(traffic: Traffic, nginx: Nginx, plan: Plan, params: dict[str, Any]) -> bool | None:
    """Write the files and let nginx read them; whether the last requests ended. After NginxError all is as before."""
    before = traffic.write(plan.files)
    # Nobody reads the files of a folder that nothing includes yet, as when it is made for the first time.
    if not plan.reload or (before.get("server.conf", "") is None):
        return None
    try:
        old = nginx.reload()
    except NginxError as error:
        traffic.write(before)
        raise NginxError(f"{error}; the files are as they were before, and nginx goes on as before") from error
    return nginx.drained(old, params["drain_timeout"]) if params["state"] == "out" else None


def main() -> None:
    module = AnsibleModule(_ARGUMENTS, required_if=_REQUIRED_IF, supports_check_mode=True)
    params = module.params
    traffic = Traffic(params["folder"])
    nginx = Nginx(params["nginx_command"], params["pid_file"], run_program, time.monotonic, time.sleep)
    writes = params["state"] != "read" and not module.check_mode
    drained = None
    try:
        if writes:
            os.makedirs(params["folder"], mode=0o755, exist_ok=True)
        with mutex(os.path.join(params["folder"], ".lock"), time.sleep) if writes else nullcontext():
            before, plan = traffic.state(), planned(traffic, params)
            if writes and plan.files:
                drained = carry_out(traffic, nginx, plan, params)
            after = traffic.state()
    except (TrafficError, NginxError, LockError, OSError) as error:
        module.fail_json(msg=str(error))
    if drained is False:
        module.warn(f"requests are still in progress after {params['drain_timeout']:g} s; they go on until they end")
    changed = bool(plan.files)
    told = "would change" if module.check_mode else "changed"
    message = f"{told}: {', '.join(sorted(plan.files))}" if changed else "everything is as wanted"
    difference = {"before": before, "after": after}
    module.exit_json(changed=changed, msg=message, reloaded=plan.reload, drained=drained, diff=difference, **after)


if __name__ == "__main__":
    main()
