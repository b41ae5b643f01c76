"""Spending a budget: shares of domains, and the exact cut. `dvsel.budget` parses a budget itself."""
