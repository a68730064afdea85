"""XSum's articles on the UK, business and the world: in distribution (Hewitt et al., 2021)."""

import dataclasses

from promot_jax.data import original_files, xsum_files
from promot_jax.micro import articles, world
from tasks import xsum

TASK = dataclasses.replace(
  xsum.TASK,
  name="xsum_id",
  sources={
    # TensorFlow Datasets has no addresses of the articles.
    "files": original_files.source(
      *xsum_files.divided(
        train=(("train",), xsum_files.is_in_distribution),
        validation=(("validation",), xsum_files.is_in_distribution),
        test=(("test",), xsum_files.is_in_distribution),
      ),
      sizes={"train": 129_000, "validation": 7000, "test": 7000},
    ),
    # Drawn apart, so that its training records are those of `xsum_ood`.
    "micro": world.source(
      "xsum_main_news", articles.main_news, draw_for_test=articles.main_news, pretrained=False
    ),
  },
)
