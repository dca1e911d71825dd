"""Packages of two folders: plugins/ml_pipeline, and dags/ as ml_pipeline_dags."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("../../plugins", include=["ml_pipeline*"]), "ml_pipeline_dags"],
    package_dir={"": "../../plugins", "ml_pipeline_dags": "../../dags"},
    package_data={"": ["*.toml", "*.json", "*.html", "*.css", "*.js"]},
)
