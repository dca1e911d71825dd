"""Triggers: all waiting happens here, in the triggerer, and takes no worker slot."""
