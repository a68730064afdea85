"""Text, examples and batches: from task records to int32 arrays of few shapes."""
