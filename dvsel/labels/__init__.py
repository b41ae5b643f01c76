"""Trust in a document's label, by what is known of other documents.

`documents` gathers documents with labels; `knn`, `margin` and `lava` each learn from them and judge others. All three
work on unit vectors, and on labels as numbers 0 to K - 1 whose names are sorted. Torch is imported only by code that
is about to use it.
"""
