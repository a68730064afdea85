"""Mixtures of tasks, for one model that is fine-tuned on several.

seqio users get them under their usual names at equal rates.  Our own training reads the members
(`tasks.members`) one by one and mixes them in `promot_jax.data.mixtures`, because each example
carries the number of its task's prompt there.
"""

import seqio

from tasks import catalog
from tasks import rte as _rte  # noqa: F401  (imported for its registration)
from tasks import wmt14_en_fr as _wmt14_en_fr  # noqa: F401

for _name in catalog.MIXTURES:
  for _shots in catalog.SHOTS:
    for _place in catalog.SOURCES:
      for _form in ("", ".sentinel"):
        _full = f"{_name}_{_shots}shot" if _shots else _name
        _full = f"{_full}.{_place}{_form}"
        if _full not in seqio.MixtureRegistry.names():
          seqio.MixtureRegistry.add(_full, catalog.members(_full), default_rate=1.0)
