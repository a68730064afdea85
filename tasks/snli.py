"""Stanford Natural Language Inference: a fine-tuned task of the paper's Table 10."""

from tasks import registration

registration.add("snli")
