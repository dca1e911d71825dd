"""Pure functions that turn settings into AWS requests: values in, the dict for one boto3 call out.

No network, no Airflow, no clock, so that tests hold every request against botocore's own service model.
"""
