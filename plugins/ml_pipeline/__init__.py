"""The Airflow side: operators, triggers, and pure functions that turn settings into AWS requests."""
