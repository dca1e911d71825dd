"""Programs for developers: what `make check` and `make docs` run. Never installed, never imported by the product."""
