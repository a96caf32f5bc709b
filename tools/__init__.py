"""What `dev.py` runs inside the environment: the demo and its images, and what developers run."""
