"""Finding what is wrong with a shard set, and rebuilding what whole shards prove."""
