"""Score files and files of embeddings ("row files"): one Parquet file beside each shard, row-aligned.

Row i speaks of line i + 1 of a JSON Lines shard, or of row i of a Parquet one; a line that was skipped has a row
too. A row file is written under a temporary name and renamed when it is whole, so its existence is the mark that its
shard is done. Columns are plain and uncompressed: selection reads them at the speed of a copy.

    score        float32, NaN for a document without a usable score; with several groups score.NAME, one each;
                 in a file of embeddings instead vector, bytes of fixed length: float16 or float32, little-endian
    key          uint64, XXH64 of text and id: the document's own number, which noise and ties come from
    text_hash    uint64, XXH64 of the text
    tokens       uint32
    bytes        uint32, of the text in UTF-8
    status       uint8, a `dvsel.documents.columns.Status`
    domain       dictionary of strings, "" for none

The footer's key `dvsel` holds a `header.Header` as JSON, and `dvsel.digest` its XXH3-128. Each column of each row group
has a digest in the header, which is compared when the group is read: a damaged file is refused before any of its rows
is used. Parquet's own checksums of pages are there too, for other readers. Row files may come from others: whatever
they say, what they name lies inside the output.

A vector is bytes because Parquet's lists of numbers are read 50 times as slowly:
`numpy.frombuffer(table["vector"].chunk(0).buffers()[1], "f2").reshape(-1, width)` gives all of a row group.
"""
