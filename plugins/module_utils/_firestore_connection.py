# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every module reaches Firestore, its Admin API and Cloud Storage, or the stand-ins for them.

Google's libraries know some stand-ins by environment variables and the Admin client knows none, so that a half
configured test would reach production. Here it is all or nothing: once one stand-in is named, every client goes to
a stand-in, without credentials and past any proxy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.upkeep.ops.plugins.module_utils._dependencies import load
from ansible_collections.upkeep.ops.plugins.module_utils._firestore_index_link import remedy as index_remedy

#: Argument spec of the options in the documentation fragment ``upkeep.ops._firestore_connection``.
CONNECTION_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "project": {"type": "str", "required": True},
    "database": {"type": "str", "default": "(default)"},
    "emulator_host": {"type": "str"},
    "admin_endpoint": {"type": "str"},
    "storage_endpoint": {"type": "str"},
    "service_account_file": {"type": "path"},
    "impersonate_service_account": {"type": "str"},
}

_VARIABLES = {"emulator_host": "FIRESTORE_EMULATOR_HOST", "storage_endpoint": "STORAGE_EMULATOR_HOST"}
_STAND_INS = ("emulator_host", "admin_endpoint", "storage_endpoint")
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


class FirestoreAccessError(Exception):
    """Google or a stand-in could not be asked; the text names whom, the cause and what to do."""


class FirestoreUnreachableError(FirestoreAccessError):
    """It may work a moment later: there was no answer, or one that says to come back."""


@dataclass(frozen=True)
class Target:
    """A database and where its services are; empty addresses mean Google's."""

    project: str
    database: str = "(default)"
    emulator_host: str = ""
    admin_endpoint: str = ""
    storage_endpoint: str = ""
    service_account_file: str = ""
    impersonate_service_account: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any], environment: Mapping[str, str]) -> Target:
        """From the options of :data:`CONNECTION_OPTIONS` and the process's environment.

        Raises ValueError when only some stand-ins are named, or credentials beside them.
        """
        found = {name: options[name] for name in CONNECTION_OPTIONS if options.get(name)}
        for name, variable in _VARIABLES.items():
            if variable in environment:
                found.setdefault(name, environment[variable])
        target = cls(**found)
        target._must_be_all_or_nothing()
        return target

    def _must_be_all_or_nothing(self) -> None:
        named = [name for name in _STAND_INS if getattr(self, name)]
        missing = [name for name in _STAND_INS if not getattr(self, name)]
        if named and missing:
            raise ValueError(
                f"{' and '.join(named)} named a stand-in (by option or environment), so nothing may reach Google: "
                f"set {' and '.join(missing)} as well"
            )
        for name in ("service_account_file", "impersonate_service_account"):
            if named and getattr(self, name):
                raise ValueError(f"{name} is for Google and {named[0]} for a stand-in: leave one of them out")

    @property
    def name(self) -> str:
        """The database as Google's APIs name it."""
        return f"projects/{self.project}/databases/{self.database}"

    @property
    def is_stand_in(self) -> bool:
        return bool(self.emulator_host or self.storage_endpoint)

    @property
    def admin_address(self) -> str:
        """The Admin API's address for messages."""
        return self.admin_endpoint or "firestore.googleapis.com"

    @property
    def data_address(self) -> str:
        """Firestore's address for messages."""
        return self.emulator_host or "firestore.googleapis.com"

    @property
    def storage_url(self) -> str:
        """Cloud Storage's address; the scheme may be left out of the option, as of STORAGE_EMULATOR_HOST."""
        if not self.storage_endpoint:
            return "https://storage.googleapis.com"
        has_scheme = "://" in self.storage_endpoint
        return self.storage_endpoint if has_scheme else f"http://{self.storage_endpoint}"


def credentials(target: Target) -> Any:
    """Credentials of google-auth: anonymous for stand-ins, else the file's or the default ones, then impersonated.

    Raises FirestoreAccessError when there are none.
    """
    auth = load("google.auth")
    if target.is_stand_in:
        return load("google.auth", "credentials").AnonymousCredentials()
    try:
        if target.service_account_file:
            accounts = load("google.oauth2", "service_account").Credentials
            found = accounts.from_service_account_file(target.service_account_file, scopes=_SCOPES)
        else:
            found, _project = auth.default(scopes=_SCOPES)
    except (load("google.auth", "exceptions").GoogleAuthError, OSError, ValueError) as error:
        source = target.service_account_file or "the application default credentials"
        raise FirestoreAccessError(
            f"no credentials for Google from {source}: {error}. Set service_account_file, run "
            "'gcloud auth application-default login', or give this host a service account"
        ) from error
    if not target.impersonate_service_account:
        return found
    return load("google.auth", "impersonated_credentials").Credentials(
        source_credentials=found, target_principal=target.impersonate_service_account, target_scopes=list(_SCOPES)
    )


def admin_client(target: Target) -> Any:
    """A FirestoreAdminClient that is not connected yet. Raises FirestoreAccessError for want of credentials."""
    admin = load("google.cloud.firestore_admin_v1")
    if not target.is_stand_in:
        return admin.FirestoreAdminClient(credentials=credentials(target))
    transports = load("google.cloud.firestore_admin_v1", "services.firestore_admin.transports")
    return admin.FirestoreAdminClient(
        transport=transports.FirestoreAdminGrpcTransport(channel=_plain_channel(target.admin_endpoint))
    )


def data_client(target: Target) -> Any:
    """The FirestoreClient of google.cloud.firestore_v1.services, which takes no notice of the environment."""
    firestore = load("google.cloud.firestore_v1", "services.firestore")
    if not target.is_stand_in:
        return firestore.FirestoreClient(credentials=credentials(target))
    transports = load("google.cloud.firestore_v1", "services.firestore.transports")
    return firestore.FirestoreClient(
        transport=transports.FirestoreGrpcTransport(channel=_plain_channel(target.emulator_host))
    )


def storage_client(target: Target) -> Any:
    """A google.cloud.storage.Client. Its calls need a ``timeout`` and a ``retry``: the default is to try for 120 s."""
    storage = load("google.cloud.storage")
    found = credentials(target)
    if not target.is_stand_in:
        return storage.Client(project=target.project, credentials=found)
    session = load("google.auth", "transport.requests").AuthorizedSession(found)
    session.trust_env = False
    options = {"api_endpoint": target.storage_url}
    return storage.Client(project=target.project, credentials=found, client_options=options, _http=session)


def _plain_channel(endpoint: str) -> Any:
    """Without TLS, past proxies, and on connections of its own: shared ones remember failures for a while."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    return load("grpc").insecure_channel(endpoint, options=options)


@contextmanager
def explained(address: str, remedies: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn what Google's libraries raise inside the block into FirestoreAccessError with a sentence for a person.

    ``remedies`` say what to do by the name of an exception, where that is something else than with Firestore.
    """
    api, auth = load("google.api_core", "exceptions"), load("google.auth", "exceptions")
    requests = load("requests")
    try:
        yield
    except (api.GoogleAPIError, auth.GoogleAuthError, requests.RequestException) as error:
        raise _explanation(address, error, {**_REMEDIES, **(remedies or {})}) from error


#: Names of exceptions, their own or a parent's, with what to do; what may pass by itself is in _TRANSIENT.
_REMEDIES = {
    "Forbidden": "the account needs roles/datastore.importExportAdmin (roles/editor does not do) and read access to "
    "the bucket, and Firestore's service agent needs write access to it",
    "Unauthorized": "the credentials are not accepted: are they of the right project, and not expired or revoked?",
    "NotFound": "check the names of project, database and bucket",
    "BadRequest": "correct what it names and run the task again",
    "GoogleAuthError": "the credentials cannot be used: are they complete, not revoked, and is Google reachable?",
}
_TRANSIENT = {
    "ServiceUnavailable": "nothing answers there: is the address right, is it running, is the way to it open?",
    "GatewayTimeout": "it did not answer in time: try again, and look whether it hangs",
    "RetryError": "it did not answer in time: try again, and look whether it hangs",
    "ConnectionError": "nothing answers there: is the address right, is it running, is the way to it open?",
    "TransportError": "Google cannot be reached: is the way to it open?",
    "Timeout": "it did not answer in time: try again, and look whether it hangs",
    "TooManyRequests": "it asks for fewer requests: try again later",
    "InternalServerError": "it failed itself: try again",
}


def _explanation(address: str, error: Exception, remedies: Mapping[str, str]) -> FirestoreAccessError:
    said = " ".join(str(error).split()) or type(error).__name__
    names = [kind.__name__ for kind in type(error).__mro__]
    for name in names:
        if name in _TRANSIENT:
            return FirestoreUnreachableError(f"{address}: {said} ({_TRANSIENT[name]})")
        if name in remedies:
            return FirestoreAccessError(f"{address}: {said} ({index_remedy(said) or remedies[name]})")
    return FirestoreAccessError(f"{address}: {said}")
