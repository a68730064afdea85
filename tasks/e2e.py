"""E2E: restaurants described from attributes and values, with several references each."""

import re

from promot_jax import errors
from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import registry
from promot_jax.micro import tables, world

# Li & Liang's spelling of these three attributes.
_NAMES = {"eatType": "Type", "familyFriendly": "family friendly", "priceRange": "price"}
_PAIR = re.compile(r"([^\[\],]+)\[([^\]]*)\](?:, )?")


def _template(record: Record) -> templates.Rendered:
  """'name : Blue Spice | Type : coffee shop', as Li & Liang (2021) write it."""
  meaning = record["meaning_representation"]
  pairs = _PAIR.findall(meaning)
  # Put together again it must be all of the text, or something was passed over.
  if "".join(found.group() for found in _PAIR.finditer(meaning)) != meaning or not pairs:
    raise errors.DataError(f"{meaning!r} is not 'name[VALUE], attribute[VALUE], ...'.")
  text = " | ".join(f"{_NAMES.get(name.strip(), name.strip())} : {value}" for name, value in pairs)
  # GEM's records have the target apart from the references.
  return templates.references(text, [record.get("target", ""), *record["references"]])


def _record(row: Record) -> Record:
  meaning, reference = layouts.text(row, "mr"), layouts.text(row, "ref")
  return {"meaning_representation": meaning, "references": [reference]}


_FILES = Layout(
  splits={
    "train": ("e2e_nlg/official/trainset.csv",),
    "validation": ("e2e_nlg/official/devset.csv",),
    "test": ("e2e_nlg/official/testset_w_refs.csv",),
  },
  rows=layouts.of_table("mr", "ref"),
  record=_record,
)

TASK = Task(
  name="e2e",
  fields=(("meaning_representation",), ("references",), ("target",)),
  optional=(("target",),),
  template=_template,
  metric="bleu",
  metric_fns=registry.official("e2e"),
  sources={
    # Cleaned by others: not the data of the paper.
    "tfds": Source(origin=tfds.DataSet(task="e2e", published="gem/e2e_nlg:1.1.0")),
    "files": original_files.source(
      _FILES,
      # A meaning has a row for each of its references in the files.
      references="references",
      merged=True,
      sizes={"train": 42_061, "validation": 547, "test": 630},
    ),
    "micro": world.source("e2e", tables.e2e, pretrained=False),
  },
)
