"""The number of this process among a job's. An engine sets it; models choose a GPU by it."""

number = 0
