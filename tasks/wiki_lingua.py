"""WikiLingua, summaries of English how-to guides: an unseen generation task."""

from promot_jax.data import layouts, original_files, templates, tfds
from promot_jax.data.original_files import Layout
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import rouge
from promot_jax.micro import summaries, world


def _template(record: Record) -> templates.Rendered:
  # GEM's records may have further references; the files have none.
  return templates.summary(record["source"], [record["target"], *record.get("references", ())])


_FILES = Layout(  # as GEM distributes it
  splits={
    split: (f"wiki_lingua/english/{name}.src.en", f"wiki_lingua/english/{name}.tgt.en")
    for split, name in {"train": "train", "validation": "val", "test": "test"}.items()
  },
  rows=layouts.of_parallel("source", "target"),
  record=lambda row: {name: layouts.text(row, name) for name in ("source", "target")},
)
_SIZES = {"train": 99_020, "validation": 13_823, "test": 28_614}

TASK = Task(
  name="wiki_lingua",
  fields=(("source",), ("target",), ("references",)),
  optional=(("references",),),
  template=_template,
  metric="rouge2",
  metric_fns=(rouge.rouge,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="wiki_lingua", published="gem/wiki_lingua_english_en:1.1.0"),
      sizes={"train": 99_020},
    ),
    "files": original_files.source(_FILES, sizes=_SIZES),
    "micro": world.source("wiki_lingua", summaries.wiki_lingua),
  },
)
