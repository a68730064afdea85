"""XSum, one-sentence summaries of BBC articles: an unseen generation task."""

from promot_jax.data import original_files, templates, tfds, xsum_files
from promot_jax.data.task import Record, Source, Task
from promot_jax.metrics import rouge
from promot_jax.micro import summaries, world


def _template(record: Record) -> templates.Rendered:
  return templates.summary(record["document"], [record["summary"]])


TASK = Task(
  name="xsum",
  fields=(("document",), ("summary",)),
  template=_template,
  metric="rouge2",
  metric_fns=(rouge.rouge,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(task="xsum", published="xsum:1.1.0"), sizes={"train": 203_577}
    ),
    "files": original_files.source(*xsum_files.whole(), sizes=xsum_files.SIZES),
    "micro": world.source("xsum", summaries.xsum),
  },
)
