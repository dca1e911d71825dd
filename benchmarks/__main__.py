"""`make bench` runs every program here, `make bench ONLY=<name>` one of them, with the options in ARGS="--repeats 1".

Each program ends with one line of JSON: {"name", "figure", "unit", "limit", "peers", "ratio", "conditions"},
where `ratio` is the number that a bar speaks of.
"""

from __future__ import annotations

import argparse
import pkgutil
import subprocess
import sys

import benchmarks


def names() -> list[str]:
    """Names of the programs: their module's, with dashes. An underscore in front marks shared code."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__) if not module.ispkg)
    return sorted(name.replace("_", "-") for name in found if not name.startswith("_"))


def main() -> int:
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("only", nargs="?", choices=names(), help="one program; all of them by default")
    parsed, options = arguments.parse_known_args()
    chosen = parsed.only
    if options and not chosen:
        arguments.error(f"{' '.join(options)}: options belong to one program; name it")
    failed = []
    for name in [chosen] if chosen else names():
        print(f"\n== {name}", flush=True)
        if subprocess.call([sys.executable, "-m", f"benchmarks.{name.replace('-', '_')}", *options]) != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
