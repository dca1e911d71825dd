"""IAM: who asks, what a request needs, and whether policies allow it."""
