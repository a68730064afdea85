"""WMT16 English to German: an unseen generation task."""

import functools

from promot_jax.data import original_files, templates, tfds, translation_files
from promot_jax.data.task import Source, Task
from promot_jax.metrics import bleu
from promot_jax.micro import translations, world

TASK = Task(
  name="wmt16_en_de",
  fields=(("en",), ("de",)),
  template=templates.translation("en", "de"),
  metric="bleu",
  metric_fns=(bleu.bleu,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(
        task="wmt16_en_de",
        published="wmt16_translate/de-en:0.0.3",
        # Newer releases of TensorFlow Datasets no longer offer the published version.
        available="wmt16_translate/de-en:1.0.0",
      ),
      sizes={"train": 4_548_885, "test": 2999},
    ),
    "files": original_files.source(
      *translation_files.layouts(
        "wmt16_en_de", "en", "de", choose="newstest2015", report="newstest2016"
      ),
      sizes={"train": 4_548_885, "validation": 2169, "test": 2999},
    ),
    "micro": world.source(
      "wmt16_en_de",
      functools.partial(translations.translation, language="de"),
    ),
  },
)
