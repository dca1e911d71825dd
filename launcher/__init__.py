"""The developer commands: make run, status, predict, stop; a supervisor and its preflight checks."""
