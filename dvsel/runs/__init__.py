"""A run, from its options to its report: requests, recipes, the output folder, fitted files."""
