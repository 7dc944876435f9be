"""The durable writes of the whole package, under the name that the store uses."""

from wsrl.durable import disk_errors, locked, publish, sync_directory, sync_file, write_bytes

__all__ = ["disk_errors", "locked", "publish", "sync_directory", "sync_file", "write_bytes"]
