"""EC2 instances that run, as process groups in folders of their own, and SSM Run Command on them."""
