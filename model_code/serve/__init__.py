"""HTTP server for a model bundle: GET /ping and POST /invocations."""
