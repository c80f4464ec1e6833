"""A recipe's own command line, which needs nothing of VoidVM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from recipelib.tools import BuildError, Report


class Build(Protocol):
    """Makes the image's files in a folder; answers their paths."""

    def __call__(self, output: Path, /, *, report: Report) -> Iterable[Path]:
        """Answer the files of the image; raises `BuildError` or `OSError`."""
        ...


def run(image: str, build: Build) -> int:
    """Build from the command line; answer the exit status."""
    parser = argparse.ArgumentParser(description=f'Build the guest image "{image}".')
    parser.add_argument("--output", type=Path, required=True, help="folder for its files")
    options = parser.parse_args()
    try:
        made = build(options.output, report=lambda line: print(line, file=sys.stderr))
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(path)
    return 0
