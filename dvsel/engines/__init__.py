"""Engines run one function over all tasks of a job. `local` uses this machine's processes."""
