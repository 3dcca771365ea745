"""Sources: crawl archives, JSON lines, Parquet, Hugging Face datasets."""
