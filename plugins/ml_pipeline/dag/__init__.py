"""Parts of DAG files: params, tasks, documentation, defaults."""

from ml_pipeline.dag.versions import check_versions

# An import error of each DAG, where people look: that of the plugin is in the log alone.
check_versions()
