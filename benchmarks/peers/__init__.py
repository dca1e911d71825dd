"""The usual ways to serve a PyTorch image classifier, written as their documentation shows."""
