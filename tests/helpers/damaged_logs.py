"""Logs whose damage only shows when a worker reads them."""

from tests.helpers.small_logs import columns, random_events, write_log


def damaged_parquet(directory):
    """A log with a broken page in its first column; its metadata is whole. Returns its path."""
    path = directory / "damaged.parquet"
    write_log(path, columns(random_events(users=500)))
    content = bytearray(path.read_bytes())
    content[100:300] = bytes(200)
    path.write_bytes(content)
    return str(path)
