"""The ids of tokens that begin, end and pad outputs, as a folder of transformers says them.

config.json has them, and generation_config.json, where there is one, decides in its place: what it
lacks is not set, whatever config.json says.  `eos_token_id` and `forced_eos_token_id` may be lists.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from promot_jax import errors
from promot_jax.checkpoints.huggingface import reader
from promot_jax.token_ids import Ids, TokenIds, as_tuple, is_id


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialTokens:
  """What both files say together; None where neither says it.

  eos: ends targets.
  output_ends: of which each ends an output; None: eos alone; (): nothing does.
  """

  eos: int
  output_ends: tuple[int, ...] | None
  bos: int | None
  pad: int | None
  decoder_start: int | None
  forced_bos: Ids
  forced_eos: Ids


def read(content: Mapping[str, Any], *, eos: int, forced_eos: int | None = None) -> SpecialTokens:
  """The special tokens of a folder.

  Args:
    content: as `reader.read_config` gives it.
    eos, forced_eos: transformers' values for a model whose files do not mention them.

  Raises:
    ConfigError: a value is no id and no list of ids.
  """
  generation = content.get(reader.GENERATION)
  deciding, where = (content, reader.CONFIG)
  # generation_config.json decides alone where it is there, as in `generate`.
  if generation is not None:
    deciding, where = generation, reader.GENERATION

  def one(name: str) -> int | None:
    """From either file: these say how the network was trained, too."""
    found = [*_ids(deciding, name, where), *_ids(content, name, reader.CONFIG)]
    return found[0] if found else None

  own = _ids(content, "eos_token_id", reader.CONFIG)
  ends = _ids(deciding, "eos_token_id", where)
  if generation is None and "eos_token_id" not in content:
    # A config.json that does not mention it has transformers' default; one that says null has none.
    ends = (eos,)
  # Of several the first ends targets, or the one that config.json names alone.
  main = ends[0] if ends else own[0] if own else eos
  # An output may end at several tokens, and training needs the one that its targets end with.
  if len(own) == 1 and own[0] in ends:
    main = own[0]
  start = one("decoder_start_token_id")
  if generation is not None and generation.get("decoder_start_token_id") is None:
    # transformers' own way round: the decoder begins with bos where nothing else is named.
    bos = _ids(generation, "bos_token_id", where)
    start = bos[0] if bos else start  # transformers begins with it then
  # Not mentioned is not the same as null, which switches it off.
  if generation is None and "forced_eos_token_id" not in content:
    last: tuple[int, ...] = as_tuple(forced_eos)
  else:
    last = _ids(deciding, "forced_eos_token_id", where)
  first = _ids(deciding, "forced_bos_token_id", where)
  # From before there was a setting for the id itself.
  if not first and generation is None and content.get("force_bos_token_to_be_generated"):
    first = _ids(content, "bos_token_id", where)  # what old files of BART say
  return SpecialTokens(
    eos=main,
    output_ends=None if ends == (main,) else ends,
    bos=one("bos_token_id"),
    pad=one("pad_token_id"),
    decoder_start=start,
    forced_bos=_plain(first),
    forced_eos=_plain(last),
  )


def of_config_json(config: Any) -> dict[str, Any]:
  """Ids of ends and padding in a config.json for a backbone of ours; the others are its family's."""
  ids = TokenIds.of(config)
  # A list begins with the end of targets, as `read` takes it; else one id must do.
  listed = len(ids.ends) > 1 and ids.ends[0] == ids.eos
  # Decoder-only models pad with a number that no token has, and which no file may name.
  pad = ids.pad if ids.pad >= 0 else getattr(config, "written_pad", None)
  return {"eos_token_id": list(ids.ends) if listed else ids.eos, "pad_token_id": pad}


def generation_config(config: Any, content: Mapping[str, Any]) -> dict[str, Any]:
  """generation_config.json for a backbone of ours.

  Args:
    content: its config.json.
  """
  ids = TokenIds.of(config)
  names = ("bos_token_id", "decoder_start_token_id", "pad_token_id")
  found = {name: content.get(name) for name in names}
  found["eos_token_id"] = _listed(ids.ends)
  found["forced_bos_token_id"] = _listed(as_tuple(ids.forced_first))
  found["forced_eos_token_id"] = _listed(as_tuple(ids.forced_last))
  return {name: value for name, value in sorted(found.items()) if value is not None}


def _ids(content: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
  value = content.get(name)
  if value is None:
    return ()
  ids = tuple(value) if isinstance(value, list | tuple) else (value,)
  if ids == (-1,):  # the first LLaMA's way to say that there is none
    return ()
  single = name not in ("eos_token_id", "forced_bos_token_id", "forced_eos_token_id")
  if not ids or not all(map(is_id, ids)) or (single and len(ids) > 1):
    wanted = "one id" if single else "an id, or a list of ids"
    raise errors.ConfigError(
      f"{where} has {name}={value!r}, which must be {wanted}; correct it, or delete that line."
    )
  return tuple(dict.fromkeys(ids))


def _plain(ids: tuple[int, ...]) -> Ids:
  return ids if len(ids) > 1 else ids[0] if ids else None


def _listed(ids: tuple[int, ...]) -> int | list[int] | None:
  return list(ids) if len(ids) > 1 else ids[0] if ids else None
