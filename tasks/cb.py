"""CommitmentBank of SuperGLUE: three-way inference from embedded clauses."""

from tasks import registration

registration.add("cb")
