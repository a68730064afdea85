"""`promot analyze NAME`: figures about runs, as a table, JSON and pictures.

An analysis is a file of `gin/analyses` (or `analyses` below a search path) that binds ANALYSIS to a value of
`promot_jax.analyses`; its name is the file's, and nothing else lists it.
"""

import argparse
import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from promot_jax.cli import directory, gin_config, gin_files
from promot_jax.cli.flags import Flags
from promot_jax.cli.gin_effect import ANALYSIS
from promot_jax.cli.recipe_values import near
from promot_jax.cli.screen import aligned, show
from promot_jax.errors import ConfigError

_FOLDER = "analyses"
_SHOWN = 60  # rows on the screen; the files have all of them


def run(flags: Flags) -> int:
  """Runs `promot analyze`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  named = [*values.runs, *([values.model_dir] if values.model_dir else [])]
  _check(values, named)
  analysis = _analysis(flags)
  sources = [each for name in named for each in _opened(flags, name)]

  from promot_jax.analyses import findings

  with _held(sources, named):
    found = analysis(sources)
  settings = dataclasses.asdict(analysis)
  about = {"analysis": values.name, "settings": settings, "sources": named}
  written = findings.write(found, _output(values.output, named), name=values.name, **about)
  if values.json:
    show(json.dumps(findings.as_json(found, **about)))
    return 0
  show(_table(found))
  for note in found.notes:
    show(f"note: {note}")
  if not values.quiet:
    show("written: " + ", ".join(map(str, written)), file=sys.stderr)
  return 0


def names(search_paths: str) -> list[str]:
  """The analyses that there are."""
  return gin_files.named_below(_FOLDER, search_paths)


def _check(values, named: Sequence[str]) -> None:
  """Refuses what can be seen before anything heavy is imported."""
  known = names(values.gin_search_paths)
  if values.name not in known:
    raise ConfigError(
      f"'{values.name}' is no analysis.{near(values.name, known)} There are {', '.join(known)}."
    )
  for name in named:
    if not os.path.lexists(name):
      raise ConfigError(f"'{name}' does not exist; name model directories that promot train wrote.")


def _analysis(flags: Flags) -> Any:
  """The analysis with the settings of its file, those of further files, and those of the command line."""
  values = flags.values
  scanned = gin_config.read(
    [f"{_FOLDER}/{values.name}.gin", *flags.gin_files],
    flags.bindings,
    search_paths=values.gin_search_paths,
    allow_imports=values.gin_allow_imports,
    what=ANALYSIS,
  )
  analysis = gin_config.build(scanned, what=ANALYSIS)
  # A class is called by @NAME(), with brackets.
  if not callable(analysis) or not dataclasses.is_dataclass(analysis) or inspect.isclass(analysis):
    raise ConfigError(
      f"{ANALYSIS} of {scanned.roots[0]} is {analysis!r}, which is no analysis: a data class that is called with runs."
    )
  return analysis


def _opened(flags: Flags, name: str) -> Sequence[Any]:
  """The runs of a folder, or the path of something else."""
  path = pathlib.Path(name)
  if not path.is_dir() or directory.root_of(path) is None:
    return [path]
  # A run is what its own directory says: the command line's bindings are the analysis's.
  values = argparse.Namespace(**{**vars(flags.values), "model_dir": name})
  return directory.opened(dataclasses.replace(flags, gin_files=(), bindings=(), values=values))


@contextlib.contextmanager
def _held(sources: Sequence[Any], named: Sequence[str]) -> Iterator[None]:
  """The directories of runs, which nobody else may write to meanwhile."""
  from promot_jax.checkpoints.lease import Lease

  folders = dict.fromkeys(each.folder for each in sources if not isinstance(each, pathlib.Path))
  with contextlib.ExitStack() as held:
    for folder in folders:
      around = [name for name in named if pathlib.Path(name) in (folder, folder.parent)]
      held.enter_context(Lease(folder, whole=around[0] if around else None))
    yield


def _output(given: str | None, named: Sequence[str]) -> pathlib.Path:
  if given:
    return pathlib.Path(given)
  first = pathlib.Path(named[0]) if named else pathlib.Path("runs")
  return (first if first.is_dir() or not named else first.parent) / _FOLDER


def _table(found) -> str:
  records = found.records()
  lines = [found.columns, *(tuple(map(_cell, record.values())) for record in records[:_SHOWN])]
  more = f"\n... and {len(records) - _SHOWN} more rows" if len(records) > _SHOWN else ""
  return f"{found.title}\n{aligned(lines)}{more}"


def _cell(value: Any) -> str:
  if value is None:
    return ""
  return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["analyze", *sys.argv[1:]]))
