"""fastText classifiers: their files, their texts, and scores at the speed of a table look-up.

The classifier is linear in its features, so it folds into one number a feature (`folded`); what cannot be folded
runs through the library (`library`). Scorers share this package, as the n-gram scorers share `dvsel.ngrams`.
"""

MODES = ("space", "dclm", "datatrove")
"""What may be done to texts first; `text` says what each is."""

MOST_WORD_NGRAMS = 64
MOST_CHARS = 64
"""The longest runs of words, and of characters, that a model's features may be."""
