"""Trained prefixes in files, and as arrays of each site."""

import pathlib
import re
from collections.abc import Mapping

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.peft import prefix_tuning
from promot_jax.methods.formats import PEFT, Context, Format, Formats, Stored, Trained

_PREFIX = re.compile(r"(.*)/layers/(\d+)/(\w+)/prefix/(keys|values)")


def prefix_of(
  leaves: Mapping[str, np.ndarray], *, where: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Keys and values by 'STACK/ATTENTION' ('decoder/self_attention'), each [N G P K].

  Of a bank of several tasks they are [N tasks G P K].

  Args:
    leaves: by the names of an unrolled network.
    where: the file, for messages.

  Raises:
    ConfigError: there is none; one that is trained through a network has to be exported first.
  """
  found: dict[str, dict[str, dict[int, np.ndarray]]] = {}
  for name, leaf in leaves.items():
    # Layers come in any order, and are put together by their numbers below.
    match = _PREFIX.fullmatch(name)
    if match:
      stack, layer, attention, part = match.groups()
      site = found.setdefault(f"{stack}/{attention}", {"keys": {}, "values": {}})
      site[part][int(layer)] = leaf
  if not found:
    network = any(name.startswith("prefix_network/") for name in leaves)
    raise errors.ConfigError(
      f"'{where}' holds no keys and values of a prefix"
      + (
        ", but the network that computes them; write them with promot convert --to=method."
        if network
        else "; name a method file, a checkpoint of prefix tuning or a PEFT adapter."
      )
    )
  return {
    site: (
      # By number: as text 'layers/10' comes before 'layers/2'.
      np.stack([parts["keys"][layer] for layer in sorted(parts["keys"])]),
      np.stack([parts["values"][layer] for layer in sorted(parts["values"])]),
    )
    for site, parts in found.items()
  }


def _read_adapter(path: pathlib.Path, context: Context) -> Stored:
  # PEFT sizes a prefix by the encoder's layers, so without a configuration the decoder has as many.
  found = prefix_tuning.read_prefix_adapter(path, context.config)
  return Stored(
    leaves={
      f"decoder/layers/{layer}/self_attention/prefix/{part}": rows
      for part, values in (("keys", found.keys), ("values", found.values))
      for layer, rows in enumerate(values)
    },
    settings={"length": found.keys.shape[-2], "sites": ["decoder"], "positions": "peft"},
    notes={"base_model": found.base_model},
  )


def _write_adapter(path: pathlib.Path, trained: Trained, context: Context) -> pathlib.Path:
  positions = trained.method.positions
  alone = "encoder" not in context.config.stack_layers
  return prefix_tuning.write_prefix_adapter(
    path,
    trained.of_task(context.task).leaves,
    context.config,
    base_model=context.base_model or "",
    # PEFT counts every prefix: one that was trained uncounted would be another one there.
    counted=positions == "peft" or (positions == "paper" and alone),
  )


FORMATS: Formats = {
  PEFT: Format(types=prefix_tuning.TYPES, read=_read_adapter, write=_write_adapter)
}
