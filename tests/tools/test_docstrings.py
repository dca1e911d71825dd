"""No docstring begins with a noun clause ("What ...", "Whether ..."): ruff's pydocstyle has no rule for it."""

from __future__ import annotations

import ast
import re

from tools.check_words import readable_files

NOUN_CLAUSE = re.compile(r"(What|Whether|How|Who|Where|When|Which|Why|That)\b")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def noun_clauses(source: str) -> list[str]:
    """Return the docstrings of a module that begin with a noun clause."""
    docstrings = (
        ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)
    )
    return [text for text in docstrings if NOUN_CLAUSE.match(text)]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    files = [path for path in readable_files() if path.suffix == ".py" and path.is_file()]
    assert len(files) > 100
    assert {str(path): found for path in files if (found := noun_clauses(path.read_text()))} == {}


def test_a_noun_clause_is_found() -> None:
    source = 'def f():\n    """Whether it is so."""\n\n\ndef g():\n    """Whatever."""\n'
    assert noun_clauses(source) == ["Whether it is so."]
