"""The interfaces of scorers and selectors, how they are found by name, and the checks on what they return."""
