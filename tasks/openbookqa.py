"""OpenbookQA, four-way multiple choice: a fine-tuned task of the paper's Table 10."""

from tasks import registration

registration.add("openbookqa")
