"""The hyperparameters of `train` and `tune`: one table, and every form of it.

`python -m model_code.hyperparameters` prints the table. Nothing here imports torch, so that Airflow can import it.
"""

from model_code.hyperparameters.forms import (
    OBJECTIVE,
    add_arguments,
    from_arguments,
    from_environment,
    metric_definitions,
    names,
    parameter_ranges,
    resolve,
    rows,
    schema,
    search_space,
    static_hyperparameters,
)
from model_code.hyperparameters.row import (
    Hyperparameter,
    HyperparameterError,
    Kind,
    Mode,
    Scale,
    Strategy,
    Value,
)
from model_code.hyperparameters.table import FOLDS, TABLE, WITHOUT_PRIOR

__all__ = [
    "FOLDS",
    "OBJECTIVE",
    "TABLE",
    "WITHOUT_PRIOR",
    "Hyperparameter",
    "HyperparameterError",
    "Kind",
    "Mode",
    "Scale",
    "Strategy",
    "Value",
    "add_arguments",
    "from_arguments",
    "from_environment",
    "metric_definitions",
    "names",
    "parameter_ranges",
    "resolve",
    "rows",
    "schema",
    "search_space",
    "static_hyperparameters",
]
