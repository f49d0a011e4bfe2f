"""Sound in and out: files, devices, resampling."""
