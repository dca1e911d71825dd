"""`python -m model_code.serve MODEL_DIR`: serve until SIGTERM."""

from __future__ import annotations

import sys

from model_code.bundle.card import BundleError
from model_code.serve.http.limits import SettingsError
from model_code.serve.settings import from_arguments
from model_code.serve.supervisor import ServeError, Supervisor


def main() -> int:
    """Run the server; errors are one line on standard error and exit status 1."""
    try:
        return Supervisor(from_arguments()).run()
    except (BundleError, ServeError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
