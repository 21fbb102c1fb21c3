"""The rows of the family, branch by branch: one line per variant. No torch."""
