"""requirements.txt of a job's or a model's code: installs what the image lacks, before the script runs.

Packages go to a folder of the job or server, never into the image's interpreter, which others share. pip runs in its
sandbox, because building a package runs its code.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_aws.execution.isolation import confined
from local_aws.execution.processes import ProcessGroup, opt_ml_seen_at
from local_aws.sagemaker.trees import Tree

TIMEOUT_SECONDS = 900
LARGEST_REPORT = 64 * 2**20
INDEX_SETTINGS = ("PIP_", "SSL_CERT_", "REQUESTS_CA_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Prefixes of the variables of local_aws's own environment that tell pip where to find packages."""


class InstallFailed(Exception):
    """pip failed; the text ends with its last lines."""


@dataclass(frozen=True)
class Installer:
    """pip of an image, in the sandbox of a job.

    Attributes:
        interpreter: The image's python.
        state: The state folder of local_aws.
        folder: The job's /opt/ml.
        record: The record of its process group.
        offline: Network isolation: only installed packages satisfy a requirement.
        log: Receives the output.
        code: The folder in /opt/ml that holds requirements.txt.
    """

    interpreter: str
    state: Path
    folder: Path
    record: Path
    offline: bool
    log: Callable[[bytes], None]
    code: str = "code"

    def install(self) -> bool:
        """Install the missing requirements into /opt/ml/packages.

        Returns:
            True when anything was installed.

        Raises:
            InstallFailed: pip failed.
        """
        options = ["--no-index"] if self.offline else []
        plan = ["--quiet", "--dry-run", "--report", "/opt/ml/tmp/pip.json", "-r", "requirements.txt"]
        self._pip([*options, *plan])
        report = Tree.at(self.folder, "tmp").read("pip.json", LARGEST_REPORT)
        try:
            missing = [_pinned(entry) for entry in json.loads(report)["install"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InstallFailed(f"pip wrote no report: {error}") from error
        if not missing:
            return False
        self.log(f"installing {', '.join(missing)}".encode())
        # Resolved already: without --no-deps pip would install again what the image has.
        for line in self._pip([*options, "--no-deps", "--target", "/opt/ml/packages", *missing]):
            self.log(line)
        return True

    def _pip(self, arguments: list[str]) -> list[bytes]:
        """Run `pip install` and return its last lines."""
        lines: deque[bytes] = deque(maxlen=200)
        pip = [self.interpreter, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        group = ProcessGroup.start(
            [*pip, *arguments],
            env=pip_environment(os.environ, opt_ml_seen_at(self.folder)),
            cwd=self.folder / self.code,
            opt_ml=self.folder,
            log=lines.append,
            name=f"pip for {self.record.name}",
            record=self.record,
            isolation=confined(self.state, self.folder / "tmp", interpreter=self.interpreter),
        )
        try:
            status = group.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            group.kill()
            raise InstallFailed(f"pip took longer than {TIMEOUT_SECONDS} s") from error
        if status != 0:
            raise InstallFailed(b"\n".join(list(lines)[-10:]).decode("utf-8", "replace"))
        return list(lines)


def pip_environment(own: Mapping[str, str], root: str) -> dict[str, str]:
    """Build pip's environment: the package index of local_aws's own environment, and nothing else of it."""
    index = {name: value for name, value in own.items() if name.upper().startswith(INDEX_SETTINGS)}
    return {
        **index,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": f"{root}/tmp",
        "TMPDIR": f"{root}/tmp",
        # A requirement such as `./wheels` is relative to the code; modules of the code must not replace pip's.
        "PYTHONSAFEPATH": "1",
    }


def _pinned(entry: dict[str, Any]) -> str:
    """Turn one package of pip's report into a requirement: its direct URL where it has one, else its version."""
    metadata = entry["metadata"]
    if entry.get("is_direct"):
        return f"{metadata['name']} @ {entry['download_info']['url']}"
    return f"{metadata['name']}=={metadata['version']}"
