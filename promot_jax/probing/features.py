"""Features of a network's input on disk, named by what decides them and computed once."""

import dataclasses
import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from promot_jax.data import batches, features
from promot_jax.data.examples import Examples
from promot_jax.evaluation import whole_files
from promot_jax.models.head import POOLINGS
from promot_jax.probing import probe as probe_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureStore:
  """Features of one network.

  folder: where they are kept.
  identity: of the network, its method and its weights.
  batch_size: examples at once.
  place, fetch: batch -> devices, array -> host.
  report: called with a line about what was computed.
  """

  folder: pathlib.Path
  identity: str
  batch_size: int
  place: Callable[[Mapping[str, Any]], Any]
  fetch: Callable[[Any], np.ndarray]
  report: Callable[[str], None]

  def features(
    self, model: Callable[[], nnx.Module], examples: Examples, layer: int | None
  ) -> dict[str, np.ndarray]:
    """[N D] float32 by pooling, from disk if they are there."""
    path = self.folder / f"{self._name(examples, layer)}.npz"
    try:
      # All poolings lie in one file, so that another one of them needs no model.
      with np.load(path, allow_pickle=False) as stored:
        return {pooling: stored[pooling] for pooling in POOLINGS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      pass  # absent or cut off: computed again
    # The model is asked for only now: where all features are on disk no weights are restored.
    found = self._computed(model(), examples, layer)
    self.report(f"features  {examples.name} {examples.split}: {len(examples)} computed, {path}")
    _write(path, found)
    return found

  def _computed(
    self, model: nnx.Module, examples: Examples, layer: int | None
  ) -> dict[str, np.ndarray]:
    compute = probe_lib.feature_function(model, layer)
    special = model.token_ids
    rows: dict[str, list] = {}
    for batch, numbers in batches.EvalBatches(
      examples, batch_size=self.batch_size, special=special
    ):
      # An answer is no part of an input's features.
      given = batches.read_only(batch)
      for pooling, array in compute(self.place(given)).items():
        values = self.fetch(array)
        # Batches are sorted by length; numbers put the rows back in order.
        target = rows.setdefault(pooling, [None] * len(examples))
        for number, value in zip(numbers, values):
          if number >= 0:  # -1 fills the last batch
            target[number] = value
    return {pooling: np.stack(values) for pooling, values in rows.items()}

  def _name(self, examples: Examples, layer: int | None) -> str:
    digest = hashlib.sha256(f"{self.identity} {layer}".encode())
    # The tokens themselves, not the name of the split: the same name may stand for other examples.
    digest.update(np.asarray(examples.prompt_ids, np.int32).tobytes())
    for tokens in examples.inputs:
      array = np.ascontiguousarray(tokens, np.int32)
      digest.update(len(array).to_bytes(4, "little") + array.tobytes())
    # What a task declares besides: a method may read it.
    for name in sorted(examples.kinds):
      packed = features.pack(examples.features[name])
      digest.update(name.encode() + packed["shapes"].tobytes() + packed["values"].tobytes())
    where = "all" if layer is None else f"layer{layer}"
    return f"{examples.name}.{examples.split}.{where}.{digest.hexdigest()[:16]}"


def _write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  # In memory first, so that the file takes its place whole.
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  whole_files.write_bytes(path, stream.getvalue())
