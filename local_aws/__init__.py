"""An AWS on loopback in which SageMaker jobs, endpoints and EC2 commands really execute, as processes."""
