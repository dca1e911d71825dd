"""SageMaker, answered by processes of this machine."""
