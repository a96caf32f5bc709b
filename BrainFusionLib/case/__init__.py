"""One case: register, resample, fuse, judge."""
