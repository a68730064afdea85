"""WikiLingua, summaries of English how-to guides: an unseen generation task."""

from promot_jax.data import templates, tfds
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import rouge
from promot_jax.micro import summaries, world


def _template(record: Record) -> templates.Rendered:
  return templates.summary(record["source"], [record["target"], *record.get("references", ())])


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
    "micro": world.source("wiki_lingua", summaries.wiki_lingua),
  },
)
