"""What runs inside a training or serving container, and the data formats it reads and writes."""
