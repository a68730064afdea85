"""WebNLG 2017, tested on the topics that are not trained on."""

import dataclasses

from tasks import webnlg

TASK = dataclasses.replace(
  webnlg.TASK, name="webnlg_unseen", sources={"files": webnlg.files(webnlg.UNSEEN, 891)}
)
