"""What a family of Hugging Face models is to us: a table of names and two translations of its config.

A family file (t5.py, bart.py, ...) holds one `Family` named FAMILY.  Everything else (opening files,
reading tensor by tensor, turning kernels, cutting fused projections, comparing, writing) is done
once, in `translation.py`, by these tables, in both directions.  To add a family, write its file and
name it in `_MODULES`.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface.refused_models import REFUSED
from promot_jax.checkpoints.known_settings import Known
from promot_jax.checkpoints.stored import StoredArray

_MODULES = ("t5", "bart", "gpt2", "llama", "bert")
"""Files of this package with a FAMILY, in the order in which a checkpoint is compared with them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """One tensor of theirs and the parameter, or the parameters, of ours that it holds.

  On import the tensor is squeezed, transposed and cut, in this order; export goes the other way.

  ours: our parameter name; several names where their tensor is a fused projection.
  theirs: their tensor name.
  transpose: whether theirs is [out, in]: torch's Linear is, our kernels and GPT-2's are [in, out].
  axis: of our arrays, along which a fused tensor is cut.
  sizes: lengths of the parts along `axis`, in the order of `ours`; None: equal parts.
  squeeze: whether theirs has one more leading axis, of length 1.
  vocab_axis: of our array, the axis of length vocabulary; None: there is none.
  vocab_fill: what rows of padding get where our vocabulary is the longer one; None: the mean of the
    rows, so that a padding id is never the likeliest one.
  zeros: shape of the zeros that ours is where no tensor is stored; None: one must be.
  aliases: other names of the same values in old files; read if `theirs` is absent, and never
    written.  Where both are stored they must be equal.
  copies: other names that the same values are written under as well.
  """

  ours: str | Sequence[str]
  theirs: str
  transpose: bool = False
  axis: int = -1
  sizes: Sequence[int] | None = None
  squeeze: bool = False
  vocab_axis: int | None = None
  vocab_fill: float | None = None
  zeros: tuple[int, ...] | None = None
  aliases: Sequence[str] = ()
  copies: Sequence[str] = ()

  @property
  def our_names(self) -> tuple[str, ...]:
    """The names in `ours`, also where there is one only."""
    return (self.ours,) if isinstance(self.ours, str) else tuple(self.ours)


def linear(ours: str, theirs: str) -> list[Pair]:
  """A torch Linear with a bias."""
  return [
    Pair(ours=f"{ours}/kernel", theirs=f"{theirs}.weight", transpose=True),
    Pair(ours=f"{ours}/bias", theirs=f"{theirs}.bias"),
  ]


def norm(ours: str, theirs: str, *, formerly: tuple[str, str] | None = None) -> list[Pair]:
  """A LayerNorm; `formerly`: what old files call its scale and its bias."""
  scale, bias = [(), ()] if formerly is None else [(f"{theirs}.{name}",) for name in formerly]
  # The names before LayerNorm's parameters were called weight and bias.
  return [
    Pair(ours=f"{ours}/scale", theirs=f"{theirs}.weight", aliases=scale),
    Pair(ours=f"{ours}/bias", theirs=f"{theirs}.bias", aliases=bias),
  ]


def head(config: Any, theirs: str) -> list[Pair]:
  """The output kernel of a model whose head is not its embedding; none of one whose is."""
  if config.tied_logits:
    return []
  return [Pair(ours="decoder/logits_dense/kernel", theirs=theirs, transpose=True, vocab_axis=1)]


def required(content: Mapping[str, Any], fields: Mapping[str, str], *, of: str) -> dict[str, Any]:
  """Settings of a config.json that have no default, by our names.

  Args:
    fields: our name -> theirs.
    of: the family's name, for the message.

  Raises:
    ConfigError: one is missing.
  """
  for theirs in fields.values():
    if theirs not in content:
      raise errors.ConfigError(
        f"config.json of a {of} has no '{theirs}'; take the config.json that belongs to the weights."
      )
  return {ours: content[theirs] for ours, theirs in fields.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """A kind of backbone in transformers' terms.

  name: for messages ('T5').
  model_types: values of `model_type` in config.json that this family reads.
  config_type: class of our configuration; export finds the family by it.
  writes: whether transformers' network of this family computes a configuration of that class;
    GPT-2 and LLaMA share one.
  signature: regular expression that some tensor name of every such checkpoint matches as a whole,
    and no tensor name of other families; tells what a file without config.json is.
  settings: what is understood of config.json.
  config_from: (config.json as a dict, the stored tensors or None) -> our configuration.  Raises
    ConfigError with one sentence for a variant that our network does not compute.  The tensors tell
    a tied head from an untied one where config.json cannot.
  config_to: our configuration -> config.json that transformers 4 and 5 both understand, with
    `model_type` and `architectures`.  Token ids are also written to generation_config.json.
  names: our configuration -> the table, for unrolled layers (`encoder/layers/3/...`).
  writes_text: whether it can be the backbone of an experiment; an encoder alone is read for what
    ranks and finds texts.
  base_prefix: what stands before the names of the bare network inside of the model with a head
    ('transformer.', 'model.'); files of the bare network lack it, and are read all the same.
  ignored: regular expressions of tensors (whole names, as in the file) that carry nothing: masks,
    rotary tables.
  """

  name: str
  model_types: tuple[str, ...]
  config_type: type
  signature: str
  settings: Known
  config_from: Callable[[Mapping[str, Any], Mapping[str, StoredArray] | None], Any]
  config_to: Callable[[Any], dict[str, Any]]
  names: Callable[[Any], list[Pair]]
  writes: Callable[[Any], bool] = lambda config: True
  writes_text: bool = True
  base_prefix: str = ""
  ignored: tuple[str, ...] = ()


def all_families() -> list[Family]:
  """Every family, in the order of comparison."""
  # Imported here, because each of these files imports this one.
  return [importlib.import_module(f"{__package__}.{name}").FAMILY for name in _MODULES]


def of_config_json(content: Mapping[str, Any], *, where: str) -> Family:
  """The family that reads this config.json.

  Raises:
    ConfigError: no family does; the sentence says which there are.
  """
  found = content.get("model_type")
  for family in all_families():
    if found in family.model_types:
      return family
  known = sorted(kind for family in all_families() for kind in family.model_types)
  if found is None:
    raise errors.ConfigError(
      f"config.json of '{where}' has no model_type, so it does not say what the checkpoint is; take"
      f" the config.json that belongs to the weights. Those that can be read have {', '.join(known)}."
    )
  # What users bring most often is refused with what is missing; the rest is only named.
  name, missing = REFUSED.get(str(found), ("", ""))
  architectures = content.get("architectures")
  named = architectures[0] if isinstance(architectures, list) and architectures else None
  of = f"{named}, model_type {found!r}" if isinstance(named, str) else f"model_type {found!r}"
  reason = f": our networks lack {missing}" if missing else ""
  raise errors.ConfigError(
    f"'{where}' is {name or 'a checkpoint'} ({of}), which cannot be read{reason}. Take a"
    f" checkpoint of {', '.join(known)}, or tune this one with transformers and PEFT."
  )


def of_config(config: Any) -> Family:
  """The family that writes a backbone of ours.

  Raises:
    ConfigError: transformers has no such network.
  """
  for family in all_families():
    # Two families share a class of configurations, and each says which of them it computes.
    if isinstance(config, family.config_type) and family.writes(config):
      return family
  raise errors.ConfigError(
    f"A backbone of this {type(config).__name__} has no counterpart in transformers; export it as"
    " .npz or as a step of our own (promot convert --to=npz, --to=step), or a T5 as T5X (--to=t5x)."
  )


def of_names(names: Collection[str]) -> Family | None:
  """The family whose signature some tensor name has; None where none has."""
  # Names alone: a file without config.json says nothing else of what it is.
  for family in all_families():
    pattern = re.compile(family.signature)
    if any(pattern.fullmatch(name) for name in names):
      return family
  return None
