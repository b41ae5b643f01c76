"""The scorers, one module a method, and what a package needs that adds one (see `dvsel.interface.scorer`)."""

from dvsel.interface.scorer import Fitted, Scorer

__all__ = ["Fitted", "Scorer"]
