"""Keep the generated tables of the docs true: `python -m tools.reference` rewrites them, `--check` only compares.

A page marks a table with `<!-- generated: NAME -->` and `<!-- end -->`; the text in between is replaced. Each
table is read from the code that it describes, so a page cannot promise what the code does not have.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tools.operations import operations

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; bars and line ends inside cells are escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (" ".join(str(cell).split()).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def dag_params() -> str:
    """Return a section for each DAG with its params: name, default, accepted values, meaning."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"), collect_dags=True)
    if bag.import_errors:
        raise SystemExit(f"a DAG cannot be imported: {bag.import_errors}")
    parts = []
    for name, dag in sorted(bag.dags.items(), key=lambda item: (item[0] != "train_and_deploy", item[0])):
        rows = [
            (f"`{key}`", _code(param.value), _accepted(param.schema), _meaning(param))
            for key, param in ((key, dag.params.get_param(key)) for key in dag.params)
        ]
        parts.append(f"## {name}\n\n{table(('param', 'default', 'accepted', 'meaning'), rows)}")
    return "\n" + "\n".join(parts) + "\n"


def _code(value: Any) -> str:
    if value in (None, ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _accepted(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    types = schema.get("type", "any")
    text = types if isinstance(types, str) else " or ".join(types)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        text += f" {'' if low is None else low}..{'' if high is None else high}"
    return f"{text}, `{schema['pattern']}`" if "pattern" in schema else text


def _meaning(param: Any) -> str:
    title = param.schema.get("title") or ""
    text = param.schema.get("description_md") or param.description or ""
    return f"**{title}**. {text}" if title and text else f"**{title}**" if title else text


def hyperparameters() -> str:
    """Return the table of hyperparameters."""
    from model_code.hyperparameters.row import BOTH, Scale
    from model_code.hyperparameters.table import TABLE

    rows = []
    for row in TABLE:
        searched = " .. ".join(map(str, row.search)) if row.search else ""
        if searched and row.scale is Scale.LOGARITHMIC:
            searched += " (log)"
        strategy = "both" if row.strategies == BOTH else ", ".join(row.strategies)
        rows.append((f"`{row.name}`", strategy, f"`{row.default}`", searched, row.help))
    return table(("name", "strategy", "default", "searched", "meaning"), rows)


def make_settings() -> str:
    """Return the settings of make, from the comments that `make help` prints."""
    found = re.findall(r"^#@ ([A-Z_]+)=(\S*)\s+(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return table(("setting", "meaning"), ((f"`{name}={value}`", meaning) for name, value, meaning in found))


def make_commands() -> str:
    """Return the commands of make."""
    found = re.findall(r"^([a-z-]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return table(("command", "effect"), ((f"`make {name}`", text) for name, text in found))


def serve_options() -> str:
    """Return the options of `python -m model_code.serve`."""
    from model_code.serve.settings import parser

    return _options(parser({}))


def serve_limits() -> str:
    """Return the limits of the server, with their defaults."""
    from model_code.serve.http.limits import Limits

    limits = Limits()
    rows = [(f"`{one.name}`", f"{getattr(limits, one.name):,}") for one in fields(Limits)]
    return table(("limit (bytes, seconds, counts)", "default"), rows)


def serve_errors() -> str:
    """Return every refusal that the server's sources name: status and code of the error document."""
    pattern = re.compile(r'HttpError\(\s*(\d{3}),\s*"([a-z0-9_]+)"', re.DOTALL)
    found: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "model_code/serve").rglob("*.py")):
        found.update(pattern.findall(path.read_text()))
    statuses = sorted({status for status, _ in found})
    return table(
        ("status", "`error` in the answer"),
        ((status, ", ".join(f"`{code}`" for one, code in sorted(found) if one == status)) for status in statuses),
    )  # fmt: skip


def local_aws_options() -> str:
    """Return the options of `local_aws start`."""
    from local_aws.cli import _parser

    (verbs,) = [action for action in _parser()._actions if isinstance(action.choices, dict)]
    assert isinstance(verbs.choices, dict)
    return _options(verbs.choices["start"])


def _options(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.dest == "help":
            continue
        name = f"`{action.option_strings[-1]}`" if action.option_strings else f"`{action.metavar}`"
        default = "cores of the machine" if action.dest == "cores" else _default(action.default)
        rows.append((name, default, action.help or ""))
    return table(("option", "default", "meaning"), rows)


def _default(value: object) -> str:
    # The same on every machine: paths inside the project are relative to it.
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    text = str(value).removeprefix(f"{ROOT}/")
    return "" if value in (None, False, []) else f"`{text}`"


GENERATED: dict[str, Callable[[], str]] = {
    "dag-params": dag_params,
    "hyperparameters": hyperparameters,
    "local-aws-options": local_aws_options,
    "make-commands": make_commands,
    "make-settings": make_settings,
    "operations": operations,
    "serve-errors": serve_errors,
    "serve-limits": serve_limits,
    "serve-options": serve_options,
}


def rendered(page: str) -> str:
    """Return a page with its generated parts made anew.

    Raises:
        SystemExit: A marker names no generator.
    """

    def replaced(match: re.Match[str]) -> str:
        generator = GENERATED.get(match[2])
        if generator is None:
            raise SystemExit(f"no generator is called {match[2]}: there are {', '.join(GENERATED)}")
        return match[1] + generator() + match[3]

    return _BLOCK.sub(replaced, page)


def pages() -> list[Path]:
    """Return the pages with generated parts."""
    candidates = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("local_aws/*.md")]
    return sorted(path for path in candidates if "<!-- generated: " in path.read_text())


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check every page; return 1 when one was stale with `--check`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a page is stale")
    chosen = parser.parse_args(arguments)
    stale = []
    for path in pages():
        old = path.read_text()
        new = rendered(old)
        if new != old:
            stale.append(path)
            if not chosen.check:
                path.write_text(new)
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale: run make docs' if chosen.check else 'rewritten'}")
    return 1 if stale and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
