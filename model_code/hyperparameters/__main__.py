"""Print the table of hyperparameters: `python -m model_code.hyperparameters`."""

import argparse

from model_code.hyperparameters.row import BOTH, Scale
from model_code.hyperparameters.table import TABLE


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description="Print every hyperparameter with its default and search range."
    )
    parser.parse_args()
    print(f"{'name':16} {'strategy':9} {'default':13} {'searched':22} meaning")
    for row in TABLE:
        strategy = "both" if row.strategies == BOTH else "/".join(row.strategies)
        searched = ""
        if row.search:
            searched = " .. ".join(map(str, row.search)) + (" log" if row.scale is Scale.LOGARITHMIC else "")
        print(f"{row.name:16} {strategy:9} {row.default!s:13} {searched:22} {row.help}")


if __name__ == "__main__":
    main()
