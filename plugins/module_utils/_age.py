# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption to public keys by the program age, proved without anybody's private key.

The private keys of the recipients are elsewhere, so what was encrypted cannot be decrypted here. Therefore each copy is
encrypted to a key of its own as well. It lives in the memory of this process alone, serves to decrypt what lies at
the destination once, and is gone when the process ends.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Protocol, cast

from ansible_collections.upkeep.ops.plugins.module_utils._programs import dies_with_us

#: What is appended to the names of encrypted files.
SUFFIX = ".age"

_CHUNK = 1 << 20
_RECIPIENT = re.compile(r"age1[a-z0-9]+|ssh-(?:ed25519|rsa) [A-Za-z0-9+/=]+(?: .*)?")


class EncryptionError(Exception):
    """Something could not be encrypted or decrypted; the text says what to do."""


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, none at the end."""


def check_recipients(recipients: Sequence[str]) -> None:
    """Raise ValueError unless every one is a public key that age understands. A private key is not quoted."""
    for recipient in recipients:
        if recipient.strip().upper().startswith("AGE-SECRET-KEY"):
            raise ValueError("recipients holds a private key (AGE-SECRET-KEY-...): give the public one (age1...)")
        if not _RECIPIENT.fullmatch(recipient.strip()):
            raise ValueError(
                f"recipients holds {recipient!r}, which is no public key such as age1... or ssh-ed25519 ..."
            )


class OwnKey:
    """A key pair for one copy; the private key is in a file that has no name and is never on a disk."""

    def __init__(self) -> None:
        told = _run(["age-keygen"], stdout=subprocess.PIPE).decode()
        found = re.search(r"^# public key: (age1[a-z0-9]+)$", told, re.MULTILINE)
        if not found:
            raise EncryptionError("age-keygen made no key that can be understood: is it another program?")
        self.public = found[1]
        self._memory = os.memfd_create("key", os.MFD_CLOEXEC)
        os.write(self._memory, told.encode())

    def __enter__(self) -> OwnKey:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._memory)

    def encrypt(self, source: str, dest: str, recipients: Sequence[str]) -> None:
        """Encrypt a file to the recipients and to this key. Raises EncryptionError."""
        keys = [word for recipient in (*recipients, self.public) for word in ("-r", recipient.strip())]
        _run(["age", "--encrypt", *keys, "-o", dest, source])

    @contextmanager
    def decrypted(self, stream: Readable) -> Iterator[IO[bytes]]:
        """What is encrypted in a stream. Raises EncryptionError at the end of the block when it is not whole."""
        key = f"/proc/self/fd/{self._memory}"
        process = subprocess.Popen(
            ["age", "--decrypt", "-i", key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(self._memory,),
            preexec_fn=dies_with_us(),
        )
        stdin, stdout, stderr = (cast(IO[bytes], pipe) for pipe in (process.stdin, process.stdout, process.stderr))
        feeder = _Feeder(stream, stdin)
        try:
            yield stdout
            feeder.join()
            complaint = stderr.read().decode(errors="replace")
            if process.wait() != 0:
                raise EncryptionError(_told("age", complaint, process.returncode))
        finally:
            process.kill()
            process.wait()
            feeder.leave()
            stdout.close()
            stderr.close()


class _Feeder(threading.Thread):
    """Hands a stream to a program while somebody else reads what the program makes of it."""

    def __init__(self, source: Readable, target: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._source, self._target = source, target
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            while chunk := self._source.read(_CHUNK):
                self._target.write(chunk)
        except BrokenPipeError:
            pass  # the program has ended, and says itself why
        except Exception as error:  # whatever it is, the thread that waits has to raise it
            self._error = error
        finally:
            with suppress(OSError):
                self._target.close()

    def leave(self) -> None:
        """Give it a moment to end; it may wait for somebody who sends nothing."""
        super().join(1)

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error:
            raise self._error


def _run(argv: Sequence[str], stdout: int = subprocess.DEVNULL) -> bytes:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            preexec_fn=dies_with_us(),
        )
    except OSError as error:
        raise EncryptionError(
            f"{argv[0]} cannot be run: {error.strerror}. Install it with 'apt install age'"
        ) from error
    if done.returncode != 0:
        raise EncryptionError(_told(argv[0], done.stderr.decode(errors="replace"), done.returncode))
    return done.stdout or b""


def _told(program: str, complaint: str, code: int) -> str:
    lines = [line for line in complaint.splitlines() if line and "age/report" not in line]
    return f"{program} failed: {lines[-1] if lines else f'it ended with code {code}'}"
