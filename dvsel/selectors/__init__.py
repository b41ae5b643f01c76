"""The selectors, one module a rule, and what a package needs that adds one (see `dvsel.interface.selector`)."""

from dvsel.interface.selector import Selector, SetSelector

__all__ = ["Selector", "SetSelector"]
