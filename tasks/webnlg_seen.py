"""WebNLG 2017, tested on the topics that are trained on."""

import dataclasses

from promot_jax.micro import tables
from tasks import webnlg

TASK = dataclasses.replace(
  webnlg.TASK,
  name="webnlg_seen",
  sources={
    "files": webnlg.files(webnlg.SEEN, 971),
    "micro": webnlg.in_micro_world(tables.webnlg),
  },
)
