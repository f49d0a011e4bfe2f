"""Where weights come from: folders, the published files, names."""
