"""PEFT's names of linear layers against ours, from the tables of the Hugging Face families.

PEFT names what it puts at a layer 'base_model.model.' + the layer's name in transformers.  One layer
of theirs may be several of ours: GPT-2 computes query, key and value in one.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.checkpoints.huggingface import families
from promot_jax.checkpoints.known_settings import Known
from promot_jax.checkpoints.peft import reader
from promot_jax.checkpoints.stored import StoredArray

PREFIX = "base_model.model."
TASKS = {"SEQ_2_SEQ_LM": True, "CAUSAL_LM": False}
"""`task_type` -> whether its models are encoder-decoders."""
_OURS = re.compile(r"((?:encoder|decoder)/layers/\d+/(?:\w*attention|mlp)/\w+)/kernel")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
  """One linear layer in transformers.

  theirs: its name there, without `PREFIX`.
  ours: our linear layers in it, in the order of its output features.
  transposed: whether its kernel is stored [out, in]; GPT-2's are not.
  """

  theirs: str
  ours: tuple[str, ...]
  transposed: bool


def of_config(config: Any) -> dict[str, Module]:
  """All linear layers of attention and mlp by their names.

  Raises:
    ConfigError: transformers has no such backbone.
  """
  found = {}
  for pair in families.of_config(config).names(config):
    # Kernels of attention and mlp only: norms and tables are no linear layers.
    matches = [_OURS.fullmatch(name) for name in pair.our_names]
    names = [match[1] for match in matches if match]
    # All parts of a fused tensor or none.
    if len(names) == len(matches):
      theirs = pair.theirs.removesuffix(".weight")
      found[theirs] = Module(theirs=theirs, ours=tuple(names), transposed=pair.transpose)
  return found


def open_adapter(
  path: Any,
  types: Mapping[str, Known],
  suffixes: Collection[str],
  config: Any,
  *,
  further: Collection[str] = (),
) -> tuple[reader.Adapter, dict[str, dict[str, Any]]]:
  """An adapter, and its arrays by module and suffix.

  Args:
    path: as `reader.open_adapter` takes it.
    types: `peft_type` -> its settings, as `reader.open_adapter` takes them.
    suffixes: how its arrays' names end ('lora_A.weight').
    config: of the backbone.
    further: how names of arrays end that a module may have beside those.

  Raises:
    ConfigError: it is another adapter, belongs to another model, or has arrays of another kind.
    DamagedCheckpoint: its files are cut off or contradict each other.
  """
  adapter = reader.open_adapter(path, types)
  task = adapter.config.get("task_type")
  # PEFT writes it only if it was told; the arrays' names decide then.
  if task is not None and TASKS.get(task) is not ("encoder" in config.stack_layers):
    raise errors.ConfigError(
      f"'{adapter.path}' has task_type {task!r}, which this backbone is not made for; give the model"
      " that it was trained with."
    )
  modules = of_config(config)
  found: dict[str, dict[str, Any]] = {}
  for name, array in adapter.arrays.items():
    suffix = next((each for each in (*suffixes, *further) if name.endswith("." + each)), None)
    module = name.removeprefix(PREFIX).removesuffix(f".{suffix}")
    if suffix is None or module not in modules:
      raise errors.ConfigError(
        f"'{adapter.path}' has an array '{name}', which belongs to no linear layer of attention or"
        f" mlp of this {type(config).__name__}; it was trained with another model, or trains more"
        " than those layers."
      )
    reader.require_float(adapter.path, name, array)
    found.setdefault(module, {})[suffix] = array
  # Half of an update is none: the file was cut off, or belongs to two adapters.
  incomplete = [module for module, arrays in found.items() if not set(suffixes) <= set(arrays)]
  if incomplete or not found:
    raise errors.DamagedCheckpoint(
      f"'{adapter.path}' has no complete set of arrays for {(incomplete or ['any layer'])[0]};"
      " copy it again."
    )
  return adapter, found


def stored(module: str, suffix: str, array: np.ndarray) -> dict[str, StoredArray]:
  """One array under PEFT's name of it."""
  name = f"{PREFIX}{module}.{suffix}"
  array = np.ascontiguousarray(array, np.float32)
  return {name: StoredArray(name=name, shape=array.shape, dtype=array.dtype, read=lambda: array)}


def targets(theirs: Iterable[str], modules: Mapping[str, Module]) -> list[str] | str:
  """`target_modules` that select exactly the given layers: ends of names, or a regular expression."""
  wanted = set(theirs)
  # The last word, as in most adapters ('q', 'v'), else two ('SelfAttention.q'), else whole names.
  for words in (1, 2):
    ends = {".".join(name.split(".")[-words:]) for name in wanted}
    # As PEFT selects: a name that is this end, or ends with a dot and it.
    selected = {name for name in modules if any(f".{name}".endswith(f".{end}") for end in ends)}
    if selected == wanted:
      return sorted(ends)
  return "|".join(re.escape(name) for name in sorted(wanted))


def patterns(names: Iterable[str], config: Any) -> list[str]:
  """Our patterns that select exactly the given linear layers, of scanned layers too if it can be."""
  layers: dict[tuple[str, str], set[int]] = {}
  for name in names:
    stack, _, number, rest = name.split("/", 3)
    layers.setdefault((stack, rest), set()).add(int(number))
  found = []
  for (stack, rest), numbers in layers.items():
    count = config.stack_layers[stack]
    every = numbers == set(range(count))
    # A stack that is selected as a whole is written without numbers, which fits scanned layers,
    # too.
    number = r"(\d+/)?" if every else f"({'|'.join(map(str, sorted(numbers)))})/"
    found.append(f"{stack}/layers/{number}{rest}")
  return found
