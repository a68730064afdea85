"""XSum's articles on the UK, business and the world: in distribution (Hewitt et al., 2021)."""

import dataclasses

from promot_jax.data import original_files, xsum_files
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
  },
)
