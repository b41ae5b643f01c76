"""Passes over a pool: naming its shards, reading, sampling, counting and annotating its documents."""
