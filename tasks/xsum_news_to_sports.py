"""XSum trained on news and tested on sport (Li & Liang, 2021)."""

import dataclasses

from promot_jax.data import original_files, xsum_files
from promot_jax.micro import articles, world
from tasks import xsum

TASK = dataclasses.replace(
  xsum.TASK,
  name="xsum_news_to_sports",
  sources={
    # TensorFlow Datasets has no addresses of the articles.
    "files": original_files.source(
      *xsum_files.divided(
        train=(("train",), xsum_files.is_news),
        validation=(("validation",), xsum_files.is_news),
        test=(("test",), xsum_files.is_sport),
      ),
    ),
    "micro": world.source(
      "xsum_news", articles.news, draw_for_test=articles.sport, pretrained=False
    ),
  },
)
