"""An AWS on loopback that runs SageMaker jobs, endpoints and EC2 commands as real processes."""
