# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cert_expiry beside loops of the openssl program."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.common import Row, in_turns, over, timed
from tests.harness import start_module
from tests.platform.parts.certificates import CertificateAuthority

FILES = 1000
#: What takes too long to be done for all files is done for so many, and scaled.
SAMPLE = 100

_NOTE = (
    f"whole processes; theirs is a shell loop over {SAMPLE} files, scaled; ours also judges chain, trust and strength."
)


def rows() -> list[Row]:
    """All comparisons; takes about half a minute."""
    with tempfile.TemporaryDirectory(prefix="upkeep-bench-") as name:
        return list(_Bench(Path(name)).rows())


class _Bench:
    def __init__(self, folder: Path) -> None:
        self._authority = CertificateAuthority(folder / "authority")
        self._folder = folder / "certificates"
        for number in range(FILES):
            identity = self._authority.issue(f"host{number}.example.test")
            # Leaf and intermediate in each file, as certbot writes them.
            identity.write(folder / "made", "last").fullchain.replace(self._place(number))

    def rows(self) -> Iterator[Row]:
        yield over(
            f"{FILES} certificate files: loop of openssl x509 -noout -enddate",
            in_turns(self.module, lambda: self.loop(['openssl x509 -noout -enddate -in "$file"'])),
            50,
            note=_NOTE,
        )
        verify = f'openssl verify -CAfile {self._authority.root_file} -untrusted "$file" "$file"'
        yield over(
            f"{FILES} certificate files: the same and openssl verify",
            in_turns(self.module, lambda: self.loop(['openssl x509 -noout -enddate -in "$file"', verify])),
            50,
            note=_NOTE,
        )

    def module(self) -> float:
        """Seconds of a whole run of the module; what it found must be true."""
        arguments = {"paths": [str(self._folder)], "ca_certs": str(self._authority.root_file)}
        output = ""

        def run() -> None:
            nonlocal output
            output, _errors = start_module("cert_expiry", arguments).communicate()

        seconds = timed(run)
        answer = json.loads(output)
        assert answer["status"] == "ok" and len(answer["certificates"]) == FILES, answer["summary"]
        return seconds

    def loop(self, commands: Sequence[str]) -> float:
        """Seconds that a shell loop would take for all files."""
        script = f"for file; do {{ {'; '.join(commands)}; }} > /dev/null || exit 1; done"
        files = [str(self._place(number)) for number in range(SAMPLE)]
        return timed(lambda: subprocess.run(["bash", "-c", script, "loop", *files], check=True)) / SAMPLE * FILES

    def _place(self, number: int) -> Path:
        self._folder.mkdir(exist_ok=True, parents=True)
        return self._folder / f"{number:04}.pem"
