"""What scorers and selectors are, how they are found by name, and the checks on what they give."""
