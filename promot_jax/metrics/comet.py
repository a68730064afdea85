"""COMET by its authors' program `comet-score`: a model trained on human ratings (Rei et al. 2020, 2022).

unbabel-comet asks for older transformers and numpy than promot_jax, so the two cannot share one
environment: its program runs in its own (`pipx install unbabel-comet`) and is given files.  COMET reads
the source text, too: targets are `metric.Sourced` values.  Of several references the best counts.
"""

import dataclasses
import json
import pathlib
import subprocess
import tempfile
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from promot_jax import errors
from promot_jax.metrics import extras, learned, metric

_ADVICE = "pipx install unbabel-comet (in an environment of its own), and have it on the PATH."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comet(metric.Mean):
  """Mean COMET, times 100; what is usual depends on the model (wmt22-comet-da: 0 to 100).

  Args:
    model: a name that the program downloads, or the path of a `.ckpt`.
    batch_size: triples scored together.
    gpus: number of GPUs; 0 computes on the CPU.

  Returns `{"comet": score}`.
  """

  scores: ClassVar[tuple[str, ...]] = ("comet",)
  scale: ClassVar[metric.Scale] = metric.Scale(low=None, high=None)

  model: str = "Unbabel/wmt22-comet-da"
  batch_size: int = 16
  gpus: int = 0

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    """Raises DataError where a target has no source."""
    for index, target in enumerate(targets):
      if not isinstance(target, metric.Sourced):
        raise errors.DataError(
          f"The metric 'comet' compares with the source text, and the target of example {index} has "
          "none; give the targets as metric.Sourced(source=..., references=...)."
        )
    # Once for each written reference, as `learned.best` makes its pairs.
    sources = [
      target.source for target in targets for _ in metric.written(metric.references(target))
    ]
    scores = learned.best(targets, predictions, lambda pairs: self._score(sources, pairs))
    return metric.mean_statistics([list(100.0 * scores)])

  @property
  def signature(self) -> str:
    return f"model:{self.model}"

  def _score(self, sources: Sequence[str], pairs: learned.Pairs) -> list[float]:
    program = extras.program("comet-score", of="comet", advice=_ADVICE)
    checkpoint = pathlib.Path(self.model)
    # The program runs in another folder.
    model = str(checkpoint.absolute()) if checkpoint.is_file() else self.model
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      columns = {
        "source": sources,
        "reference": [reference for reference, _ in pairs],
        "output": [prediction for _, prediction in pairs],
      }
      for column, texts in columns.items():
        # A line is a text to the program, so none may hold a line break.
        lines = "".join(" ".join(text.split()) + "\n" for text in texts)
        (folder / column).write_text(lines, encoding="utf-8")
      settings = {
        "-s": "source",
        "-r": "reference",
        "-t": "output",
        "--model": model,
        "--gpus": str(self.gpus),
        "--batch_size": str(self.batch_size),
        "--to_json": "scores.json",
      }
      done = subprocess.run(
        [
          program,
          "--quiet",
          "--only_system",
          *(part for pair in settings.items() for part in pair),
        ],
        cwd=folder,
        capture_output=True,
        check=False,
      )
      written = folder / "scores.json"
      if done.returncode or not written.is_file():
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise errors.ConfigError(
          f"comet-score ended with {done.returncode} for the model '{self.model}' and said: {said[-1]}"
        )
      (segments,) = json.loads(written.read_text(encoding="utf-8")).values()
      return [float(segment["COMET"]) for segment in segments]


comet = Comet()
