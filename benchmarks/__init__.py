"""Every performance claim as a program: prints a table, then one line of JSON (see `benchmarks.result`)."""
