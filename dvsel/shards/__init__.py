"""Files of documents: found, read in batches, written."""
