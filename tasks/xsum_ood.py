"""XSum's articles of other categories, tested after training on `xsum_id` (Hewitt et al., 2021)."""

import dataclasses

from promot_jax.data import original_files, xsum_files
from promot_jax.micro import articles, world
from tasks import xsum

TASK = dataclasses.replace(
  xsum.TASK,
  name="xsum_ood",
  sources={
    # TensorFlow Datasets has no addresses of the articles.
    "files": original_files.source(
      *xsum_files.divided(
        train=(("train",), xsum_files.is_in_distribution),
        validation=(("validation",), xsum_files.is_in_distribution),
        # Of all splits: nothing of these categories was trained on.
        test=(xsum_files.SPLITS, xsum_files.is_out_of_distribution),
      ),
      sizes={"train": 129_000, "validation": 7000, "test": 20_000},
    ),
    "micro": world.source(
      "xsum_main_news", articles.main_news, draw_for_test=articles.other_news, pretrained=False
    ),
  },
)
