"""Trained prefixes in files: our method files, steps of our runs, and PEFT's adapters."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints import method_files, step_reader
from promot_jax.checkpoints.peft import prefix_tuning
from promot_jax.checkpoints.peft import reader as peft_reader

_PREFIX = re.compile(r"(.*)/layers/(\d+)/(\w+)/prefix/(keys|values)")


def read_prefix(
  path: str | os.PathLike, config: Any = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Keys and values by 'STACK/ATTENTION' ('decoder/self_attention'), each [N G P K].

  Of a bank of several tasks they are [N tasks G P K].

  Args:
    path: a method file, a step of a run, or a PEFT adapter of type PREFIX_TUNING (`hf:NAME` of the
      hub too).
    config: of the backbone that will take it.  PEFT sizes a prefix by the encoder's layers, so an
      adapter does not say how many the decoder has; None: as many.

  Raises:
    ConfigError: there is no prefix that can be read.
    DamagedCheckpoint: a file is cut off or contradicts itself.
  """
  text = os.fspath(path)
  if text.startswith("hf:") or peft_reader.is_adapter(text):
    adapter = prefix_tuning.read_prefix_adapter(text, config)
    return {"decoder/self_attention": (adapter.keys, adapter.values)}
  if step_reader.is_step(pathlib.Path(text)):
    leaves: Mapping[str, Any] = step_reader.open_step(pathlib.Path(text))
  else:
    leaves = method_files.read(text).leaves
  return prefix_of({name: np.asarray(leaf) for name, leaf in leaves.items()}, where=text)


def prefix_of(
  leaves: Mapping[str, np.ndarray], *, where: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The prefix among parameters by our names.

  Raises:
    ConfigError: there is none; one that is trained through a network has to be exported first.
  """
  found: dict[str, dict[str, dict[int, np.ndarray]]] = {}
  for name, leaf in method_files.unrolled(leaves).items():
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
      np.stack([parts["keys"][layer] for layer in sorted(parts["keys"])]),
      np.stack([parts["values"][layer] for layer in sorted(parts["values"])]),
    )
    for site, parts in found.items()
  }
