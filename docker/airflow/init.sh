#!/usr/bin/env bash
# Creates or migrates the metadata database and makes the first login. Safe to run again: it changes nothing then.
set -euo pipefail

airflow db migrate
# `users create` leaves an existing user, and a password changed since, alone.
airflow users create --role Admin --username admin --password "${AIRFLOW_ADMIN_PASSWORD:?}" \
  --firstname Ml --lastname Pipeline --email "${AIRFLOW_ADMIN_EMAIL:-admin@example.com}"
