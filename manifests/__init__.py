"""What the data is: schema, fingerprint, shard, manifest, store, SQL catalog. Imports nothing of ours."""
