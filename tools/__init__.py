"""What `dev.py` runs inside the environment: the demo, its images, and the simulated MRI."""
