from pipeline.store import Source

def fill(
    files: dict[int, Source],
    shards: list[int],
    offsets: list[int],
    lengths: list[int],
    crcs: list[int],
    begin: int,
    end: int,
    out: memoryview,
    size: int,
    header: bytes,
    fast: bool,
    /,
) -> list[int]: ...
