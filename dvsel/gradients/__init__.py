"""The backend of scorers that ask what training on a document would do, by its gradient.

For a linear layer that takes x_t and whose output has the gradient g_t at position t, a document's gradient is
G = sum_t g_t x_t^T. Both are met in one forward and one backward pass with frozen weights, so a sum over documents, an
inner product with a matrix, or a norm costs no gradient of weights, and nothing is kept for a document but its score.

- `options`: the options of all these scorers. `layers`: the layers that count. `objective`, `loss_outputs`: the
  prediction, and the number whose gradient is taken.
- `gradient_pass`: documents in batches through the model. `capture`, `layer_inputs`: x and g out of a pass.
- `moments`: the target's gradient and the statistics of a pool's sample. `curvature`, `projection`, `adam`,
  `rank_one`: curvature. `trak_kernel`: TRAK's kernel.
- `target_gradient`, `low_rank`: the matrices that documents are compared with, cut to a rank. `compare`: the
  comparison. `fitted_directions`: the fitted scorer that compares. `target_steps`: weights that move along directions.
- `norms`, `input_variance`: norms, and the variance of gradients by the input. `fitted_norms`: the fitted scorer
  without a target.
- `lora`, `warmup`, `adam_updates`: an adapter, its training, and Adam's step on a document.

All but `options`, `fitted_directions` and `fitted_norms` need torch when they are imported.
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
