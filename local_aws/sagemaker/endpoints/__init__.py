"""Endpoints: configurations, servers as processes, rollouts, and the runtime that invokes them."""
