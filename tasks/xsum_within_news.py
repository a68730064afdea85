"""XSum trained on news of the world, the UK and business, tested on other news (Li & Liang, 2021)."""

import dataclasses

from promot_jax.data import original_files, xsum_files
from promot_jax.micro import articles, world
from tasks import xsum

TASK = dataclasses.replace(
  xsum.TASK,
  name="xsum_within_news",
  sources={
    # TensorFlow Datasets has no addresses of the articles.
    "files": original_files.source(
      *xsum_files.divided(
        train=(("train",), xsum_files.is_main_news),
        validation=(("validation",), xsum_files.is_main_news),
        test=(("test",), xsum_files.is_other_news),
      ),
    ),
    "micro": world.source(
      "xsum_main_news", articles.main_news, draw_for_test=articles.other_news, pretrained=False
    ),
  },
)
