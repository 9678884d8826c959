from pipeline.store import Source

def fill(
    sources: list[Source],
    offsets: list[int],
    lengths: list[int],
    crcs: list[int],
    begin: int,
    out: memoryview,
    size: int,
    header: bytes,
    fast: bool,
    /,
) -> list[int]: ...
