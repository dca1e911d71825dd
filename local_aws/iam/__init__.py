"""IAM: identify the caller, derive the permissions a request needs, evaluate policies."""
