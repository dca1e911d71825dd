"""Triggers: everything that waits, waits here, in the triggerer and not in a worker slot."""
