"""Print the folder of the DAG files: `python -m ml_pipeline_dags`, for a DAG bundle or to copy them."""

from pathlib import Path

if __name__ == "__main__":
    print(Path(__file__).parent)
