#!/bin/sh
# SageMaker starts an inference container as `docker run <image> serve`; by hand the word may be left out.
[ "${1:-}" = serve ] && shift
exec python -m model_code.serve "${MODEL_DIR:-/opt/ml/model}" --host 0.0.0.0 "$@"
