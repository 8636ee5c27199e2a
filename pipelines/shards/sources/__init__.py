"""What can be converted: folders, archives, Parquet, arrays and existing sets, each as extents of files."""
