"""Fail when a module or a function of the source outgrows its limit.

A module has at most 500 lines and a function at most 60, its docstring not
counted; the aims are 300 and 25 (STYLE.md). The limits catch the one file
everybody keeps adding to. Generated modules (`*_pb2.py`) have none. Run from anywhere:
paths are those of this tree.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MODULE_LINES = 500
FUNCTION_LINES = 60
SOURCE = Path(__file__).resolve().parent.parent / "src"


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node, clean=False) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def excesses(path: Path, source: str) -> list[str]:
    """Say where ``source`` is over a limit, one line per place."""
    found = []
    lines = source.count("\n")
    if lines > MODULE_LINES:
        found.append(f"{path}: {lines} lines; a module has at most {MODULE_LINES}")
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
            if size > FUNCTION_LINES:
                found.append(
                    f"{path}:{node.lineno}: {node.name} has {size} lines; "
                    f"a function has at most {FUNCTION_LINES}"
                )
    return found


def main() -> int:
    """Check every module under src/ and return the exit code."""
    found = [
        line
        for path in sorted(SOURCE.rglob("*.py"))
        if not path.name.endswith("_pb2.py")
        for line in excesses(path.relative_to(SOURCE.parent), path.read_text(encoding="utf-8"))
    ]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
