"""The commands as functions: a run in, a folder or file and a report out. `dvsel.cli` and `dvsel.api` call these."""
