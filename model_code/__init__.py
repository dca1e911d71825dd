"""Programs that run inside a training or serving container, and the data formats they read and write."""

import os

# ONNX Runtime's wheels report to Microsoft over the network by default, and can be told not to only before they load.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
