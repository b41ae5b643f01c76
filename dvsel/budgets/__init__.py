"""What a budget is spent on: shares of domains, and the exact cut. A budget's own form is `dvsel.budget`."""
