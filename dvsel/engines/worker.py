"""Which of a job's processes this one is. An engine says so, and what gives each process a device of its own asks."""

number = 0
