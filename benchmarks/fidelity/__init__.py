"""What the fusion of whole heads in Hounsfield units keeps: measured on simulated heads."""
