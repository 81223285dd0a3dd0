"""Pictures and annotations that are no files of this machine, or lie inside tar shards.

``objects`` reads what a URL names, with retries, through the bounded cache of ``cache``; ``shards``
reads members of tar files, found by the index of ``shard_index``; ``reading`` is the door for all.
"""
