"""RTE and English to French together: the multi-task runs of the paper's Table 5."""

from promot_jax.data.task import Mixture

MIXTURE = Mixture(name="rte_and_wmt14_en_fr", members=("rte", "wmt14_en_fr"))
