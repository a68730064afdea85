"""WMT14 English to French: the fine-tuned task of the paper's Table 4."""

import functools

from promot_jax.data import original_files, templates, tfds, translation_files
from promot_jax.data.task import Source, Task
from promot_jax.metrics import bleu, format_share
from promot_jax.micro import lexicon, translations, world

# Words that only the French of the micro world has.
# Neither English nor of the world's other languages: a word of theirs tells nothing.
_FRENCH = frozenset(words[0] for words in lexicon.TRANSLATIONS.values()) - frozenset(
  word for english, words in lexicon.TRANSLATIONS.items() for word in (english, *words[1:])
)

TASK = Task(
  name="wmt14_en_fr",
  fields=(("en",), ("fr",)),
  template=templates.translation("en", "fr"),
  metric="bleu",
  metric_fns=(bleu.bleu,),
  sources={
    "tfds": Source(
      origin=tfds.DataSet(
        task="wmt14_en_fr",
        published="wmt14_translate/fr-en:0.0.3",
        # Newer releases of TensorFlow Datasets no longer offer the published version.
        available="wmt14_translate/fr-en:1.0.0",
      ),
      sizes={"train": 15_786_979, "test": 3003},
    ),
    "files": original_files.source(
      *translation_files.layouts(
        "wmt14_en_fr", "en", "fr", choose="newstest2013", report="newstest2014"
      ),
      sizes={"train": 15_786_979, "validation": 3000, "test": 3003},
    ),
    "micro": world.source(
      "wmt14_en_fr",
      functools.partial(translations.translation, language="fr"),
      format_metric=format_share.LanguageShare(
        is_word=_FRENCH.__contains__, language="micro French"
      ),
    ),
  },
)
