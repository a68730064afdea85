"""WebNLG 2017, tested on the topics that are not trained on."""

import dataclasses

from promot_jax.micro import tables
from tasks import webnlg

TASK = dataclasses.replace(
  webnlg.TASK,
  name="webnlg_unseen",
  sources={
    "files": webnlg.files(webnlg.UNSEEN, 891),
    "micro": webnlg.in_micro_world(tables.webnlg_held_out),
  },
)
