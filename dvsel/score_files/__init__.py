"""Files with one row for each document of a shard: scores or vectors, and what selection needs beside them."""
