"""WMT16 English to Romanian: an unseen generation task."""

import functools

from promot_jax.data import original_files, templates, tfds, translation_files
from promot_jax.data.task import Source, Task
from promot_jax.metrics import bleu
from promot_jax.micro import translations, world

TASK = Task(
  name="wmt16_en_ro",
  fields=(("en",), ("ro",)),
  template=templates.translation("en", "ro"),
  metric="bleu",
  metric_fns=(bleu.bleu,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(
        task="wmt16_en_ro",
        published="wmt16_translate/ro-en:0.0.3",
        available="wmt16_translate/ro-en:1.0.0",
      ),
      sizes={"train": 610_320, "test": 1999},
    ),
    "files": original_files.source(
      *translation_files.layouts(
        "wmt16_en_ro", "en", "ro", choose="newsdev2016", report="newstest2016"
      ),
      sizes={"train": 610_320, "validation": 1999, "test": 1999},
    ),
    "micro": world.source(
      "wmt16_en_ro",
      functools.partial(translations.translation, language="ro"),
    ),
  },
)
