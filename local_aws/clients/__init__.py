"""For clients of a running local_aws: its environment, sessions that stay on loopback, a pytest plugin."""
