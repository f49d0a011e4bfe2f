"""Many files to codes and back, on all cores."""
