"""A method without its backbone: a file of a few KB to MB that says whose parameters it complements.

One .npz file: the method's parameters by their names in an unrolled network, and `method.json` with
the method's settings and the backbone's architecture, shapes and fingerprint.  Values that were
trained on top of one network are noise on top of another, so another one is refused.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import disk, npz, t5x_names
from promot_jax.models.backbone import Configuration

FORMAT = 1
DESCRIPTION = "method.json"
"""Name of the entry that says what the others are."""
_SAMPLES = 8
_MOST_COMPRESSED = 100  # times, of a file that somebody compressed again


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
  """What identifies a network without a method.

  architecture: name of its class.
  shapes: digest of the names and shapes of its parameters; scanned or unrolled makes no difference.
  fingerprint: digest of a sample of its values, rounded to bfloat16, so that a copy stored in
    bfloat16 counts as the same network and a fine-tuned one as another.
  parameters: their number.
  sizes: width, layers and the like, for messages.
  """

  architecture: str
  shapes: str
  fingerprint: str
  parameters: int
  sizes: str = ""

  @classmethod
  def of(cls, model: Any) -> "Backbone":
    """That of a network whose methods are detached."""
    # By layers of an unrolled network: scanned or not, it has one fingerprint.
    values: dict[str, bytes] = {}
    for name, leaf in paths.named_leaves(model).items():
      for number, (layer_name, shape) in enumerate(_layers(name, leaf).items()):
        if len(shape) > 1:  # norms and biases start equal everywhere
          values[layer_name] = _sample(leaf, number if layer_name != name else None)
    return cls(
      # Sorted: the order in which modules were made must not count.
      fingerprint=_digest(b"".join(name.encode() + values[name] for name in sorted(values))),
      **_architecture(model),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodFile:
  """A method's parameters and what they belong to.

  leaves: arrays by name, one for each layer.
  method: its settings, as `methods.files.describe` gives them.
  backbone: the network that they were trained with; None: not known, as in adapters of PEFT.
  notes: anything worth knowing, such as the task and the score.
  """

  leaves: Mapping[str, np.ndarray]
  method: Mapping[str, Any]
  backbone: Backbone | None
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write(path: str | os.PathLike, file: MethodFile) -> pathlib.Path:
  """Writes a method file, whole or not at all.

  Raises:
    ConfigError: there is something at `path` already, or nothing to write.
    CannotWrite: the disk refused.
  """
  path = pathlib.Path(path)
  if path.exists():
    raise errors.ConfigError(f"'{path}' exists and is not overwritten; name another file.")
  if not file.leaves:
    raise errors.ConfigError("The method has no parameters of its own, so there is no method file.")
  description = {
    "format": FORMAT,
    "method": file.method,
    "backbone": dataclasses.asdict(file.backbone) if file.backbone is not None else None,
    "notes": file.notes,
  }
  # As bytes: NumPy would store a text with four bytes for each character.
  text = np.frombuffer(json.dumps(description, default=str).encode(), np.uint8)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk.whole_file(path) as stream:
      arrays: dict[str, Any] = {DESCRIPTION: text}
      # In float32, as NumPy's format knows no bfloat16.
      arrays |= {name: np.asarray(leaf, np.float32) for name, leaf in file.leaves.items()}
      np.savez(stream, **arrays)
  except OSError as error:
    raise errors.CannotWrite(f"'{path}' cannot be written: {error.strerror or error}.") from None
  return path


def is_method_file(path: pathlib.Path) -> bool:
  """Whether a path is a .npz file with a description, whatever that says."""
  try:
    return path.is_file() and DESCRIPTION in npz.open_npz(path)
  except errors.PromotError:
    # A file of another kind, or a damaged one: whoever reads it says which.
    return False


def read(path: str | os.PathLike) -> MethodFile:
  """Reads a method file.

  Raises:
    ConfigError: there is none.
    DamagedCheckpoint: it is cut off or no method file.
  """
  place = pathlib.Path(path)
  if place.is_dir():
    raise errors.ConfigError(
      f"'{path}' is a folder, and neither a method file nor a PEFT adapter, which has an"
      " adapter_config.json; promot convert RUN FILE --to=method makes a method file of a run."
    )
  if not place.exists():
    raise errors.ConfigError(
      f"There is no method file '{path}'; promot convert RUN FILE --to=method writes one."
    )
  try:
    opened = npz.open_npz(place)
    # Before any array is read, since a header may declare far more than there is memory.
    _check_size(opened, place.stat().st_size)
    stored = {name: np.asarray(array) for name, array in opened.items()}
    description = json.loads(stored.pop(DESCRIPTION).tobytes())
    backbone = description["backbone"]
    if backbone is not None:
      _check_backbone(backbone)
    return MethodFile(
      leaves=stored,
      method=description["method"],
      backbone=Backbone(**backbone) if backbone is not None else None,
      notes=description["notes"],
    )
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    errors.DamagedCheckpoint,
  ) as error:
    raise errors.DamagedCheckpoint(
      f"'{path}' cannot be read as a method file ({error}); write it again with promot convert"
      " --to=method."
    ) from None


def _check_size(opened: Mapping[str, Any], size: int) -> None:
  """Raises ValueError at arrays that a file can only declare: we write them as they are."""
  needed = sum(math.prod(array.shape) * array.dtype.itemsize for array in opened.values())
  if needed > _MOST_COMPRESSED * size:
    raise ValueError(f"its arrays would have {needed} bytes, and the file has {size}")


def _check_backbone(described: Mapping[str, Any]) -> None:
  """Raises TypeError at fields that are no texts and no number."""
  for name, value in described.items():
    if not isinstance(value, int if name == "parameters" else str):
      raise TypeError(f"its backbone's {name} is of another type")


def check_backbone(wanted: Backbone | None, model: nnx.Module, *, where: str) -> None:
  """Raises unless the network (without a method) is the one that trained values belong to.

  Args:
    wanted: that one; None: not known, so none is refused.
    where: the file, for messages.

  Raises:
    ConfigError: it is another one.
  """
  # Shapes first: they cost nothing, and another network deserves the sentence that names its size.
  check_architecture(wanted, model, where=where)
  if wanted is None:
    return
  found = Backbone.of(model)
  if wanted.fingerprint != found.fingerprint:
    raise errors.ConfigError(
      f"'{where}' was trained with other weights of {_text(wanted)} (fingerprint"
      f" {wanted.fingerprint}, and these have {found.fingerprint}); set INITIAL_CHECKPOINT_PATH to the"
      " checkpoint that it was trained with."
    )


def check_architecture(wanted: Backbone | None, model: Any, *, where: str) -> None:
  """As `check_backbone`, without looking at the values: the model may be shapes only."""
  if wanted is None:
    return
  found = Backbone(**_architecture(model), fingerprint="")
  if (wanted.architecture, wanted.shapes) != (found.architecture, found.shapes):
    raise errors.ConfigError(
      f"'{where}' was trained with {_text(wanted)}, and this model is {_text(found)}; set MODEL and"
      " INITIAL_CHECKPOINT_PATH to the network that it was trained with."
    )


def unrolled(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Leaves with one entry for each layer, whether or not layers are stacked."""
  return t5x_names.unrolled(leaves, lambda arrays, shape, read: read(*arrays))


def layout_of(leaves: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
  """Leaves with their layers stacked or unrolled as in `wanted`."""
  return t5x_names.to_layout_of(leaves, wanted, lambda arrays, shape, read: read(*arrays))


def _architecture(model: Any) -> dict[str, Any]:
  """The fields of `Backbone` that shapes tell."""
  shapes: dict[str, list[int]] = {}
  for name, leaf in paths.named_leaves(model).items():
    shapes |= _layers(name, leaf)
  return {
    "architecture": type(model).__name__,
    "shapes": _digest(json.dumps(sorted(shapes.items())).encode()),
    "parameters": sum(math.prod(shape) for shape in shapes.values()),
    "sizes": _sizes(model.config),
  }


def _layers(name: str, leaf: Any) -> dict[str, list[int]]:
  """Name in an unrolled network -> shape, of a parameter or of each layer of a stacked one."""
  shape = tuple(leaf.shape)
  names = t5x_names.unrolled({name: _Shape(shape)}, lambda arrays, shape, read: _Shape(shape))
  return {each: list(shape if each == name else shape[1:]) for each in names}


@dataclasses.dataclass(frozen=True)
class _Shape:
  shape: tuple[int, ...]


def _sample(leaf: Any, layer: int | None) -> bytes:
  shape = leaf.shape if layer is None else leaf.shape[1:]
  # A few values from all over an array tell two networks apart; a digest of all would read them
  # all.
  places = np.unravel_index(np.linspace(0, math.prod(shape) - 1, _SAMPLES).astype(int), shape)
  if layer is not None:
    places = (np.full(_SAMPLES, layer), *places)
  values = np.asarray(leaf[places]).astype(np.float32)
  return values.astype(ml_dtypes.bfloat16).tobytes()


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]


def _sizes(config: Configuration) -> str:
  alone = len(config.stack_layers) == 1
  # What has one stack calls them 'layers' in its configuration, too.
  layers = [
    f"{'layers' if alone else f'{name}_layers'} {count}"
    for name, count in config.stack_layers.items()
  ]
  ends = f"heads {config.heads}", f"vocab_size {config.vocab_size}"
  return ", ".join([f"width {config.width}", *layers, *ends])


def _text(backbone: Backbone) -> str:
  sizes = f" ({backbone.sizes})" if backbone.sizes else ""
  return f"a {backbone.architecture} of {backbone.parameters:,} parameters{sizes}"
