"""Files on this machine and in object stores, and TFRecord shards in them."""
