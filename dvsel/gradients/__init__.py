"""The backend of scorers that ask what training on a document would do, by its gradient.

For a linear layer that takes x_t and whose output has the gradient g_t at position t, a document's gradient is
G = sum_t g_t x_t^T. Both are met in one forward and one backward pass with frozen weights, so a sum over documents, an
inner product with a matrix, or a norm costs no gradient of weights, and nothing is kept for a document but its score.

`options`: what all these scorers can be told. `layers`: which layers count. `objective`, `outputs`: what is
predicted, and the number whose gradient is taken. `meter`: documents in batches through the model. `capture`,
`inputs`: x and g out of a pass. `sums`: the target's gradient and the statistics of a pool's sample. `metric`,
`projection`, `adam`, `rank_one`: curvature; `kernel`: TRAK's. `direction`, `query`: the matrices that documents are
compared with, cut to a rank. `scores`: the comparison. `directed`: the fitted scorer that compares. `steps`: weights
that move along directions. `squares`, `variance`: norms, and how gradients by the input vary. `checkpoints`: the
fitted scorer without a target. `lora`, `warmup`, `updates`: an adapter, its training, and Adam's step on a document.
All but `options`, `directed` and `checkpoints` need torch when they are imported.
"""

KRONECKER = ("kfac", "ekfac", "none")
PRECONDITIONERS = ("kfac", "ekfac", "fisher", "adam", "none")
PROJECTIONS = ("target", "random", "pca")
REDUCTIONS = ("mean", "sum")
SIMILARITIES = ("dot", "cosine")
EFFORTS: dict[str, tuple[str, int]] = {  # layers, rank
    "low": ("last", 16),
    "medium": ("upper-half", 16),
    "high": ("all", 32),
    "full": ("all", 0),
}
