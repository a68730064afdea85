"""WMT14 English to French: the fine-tuned task of the paper's Table 4."""

from tasks import registration

registration.add("wmt14_en_fr")
