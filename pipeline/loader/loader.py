"""Load episodes: a sampler's plans become images in memory, chunk by chunk, H, then H-bar, then the query.

with EpisodeLoader(shards, sampler, image_size=224, h=40) as loader:
    for episode in loader:
        episode.support.h               # a Chunk: ready while H-bar is still being decoded
        for chunk in episode.support.rest: ...
        for chunk in episode.query: ...
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Final

import torch

from pipeline.decoders.base import ChunkDecoder
from pipeline.decoders.choose import DecoderName, open_decoder
from pipeline.episodes import Sampler
from pipeline.errors import UsageError
from pipeline.loader.episode import Episode
from pipeline.loader.faults import FaultPolicy, OnError
from pipeline.loader.memory import pixel_memory
from pipeline.loader.stats import LoaderMetrics, Stats
from pipeline.loader.stream import EpisodeStart, EpisodeStream, StreamEnd, StreamOptions, StreamParts
from pipeline.shardset import ShardSet
from pipeline.store.local import SampleStore

__all__ = ["EpisodeLoader"]

LOCAL_PREFETCH: Final = 4  # chunks; the disk reads while others are decoded
REMOTE_PREFETCH: Final = 48  # chunks, some ten episodes: a request takes as long as one of them


class EpisodeLoader:
    """Iterates over episodes: for a seed the same ones in the same order, whatever the settings below.

    Threads of its own read up to `ahead` chunks ahead of the consumer. Tensors that were handed out are
    the consumer's to keep; their memory is never overwritten.
    """

    def __init__(  # noqa: PLR0913 - the settings of a loader are many, named and independent
        self,
        shards: ShardSet,
        sampler: Sampler,
        *,
        image_size: int,
        h: int = 40,
        chunk: int = 128,
        device: str | torch.device = "cpu",
        decoder: DecoderName = "auto",
        threads: int | None = None,
        ahead: int = 8,
        on_error: OnError = "raise",
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        fast: bool = False,
        mapped: bool = False,
    ) -> None:
        """Open a loader; no image is read before the first episode is asked for.

        image_size: one of the sizes that the shards hold, in pixels.
        h: number of support images (with clips: of clips) that carry gradient; they come first.
        chunk: images decoded, copied and handed out at a time, at most; H is one chunk whatever h is.
        device: where the images go; "cuda" copies, or decodes, on CUDA streams of its own.
        decoder: of JPEG. turbo: libjpeg-turbo in threads. dali: NVIDIA DALI, on the GPU's own engines
            where there is one, some grey levels off. auto: turbo.
        threads: number that decode; by default one for each usable core, on a GPU one less.
        ahead: chunks that may be decoded before they are asked for; waiting chunks take memory.
        on_error: for a sample that cannot be read or decoded. raise: an error at its chunk, and already
            here for a tar that is missing or of another length. mask: zeros, and False in `Chunk.valid`.
            replace: another sample of its class, always the same one.
        rank, world: this process takes the episodes start + rank, start + rank + world, ...
        fast: turbo decodes JPEG a few per cent faster, some grey levels off.
        mapped: map local shards into memory: faster, but a shard truncated meanwhile kills the process.
        """
        if min(chunk, ahead, world) < 1 or h < 0 or start < 0 or not 0 <= rank < world:
            raise UsageError(
                "chunk, ahead and world start at 1, h and start at 0, rank is 0 to world - 1; got "
                f"chunk={chunk}, ahead={ahead}, h={h}, start={start}, rank={rank}, world={world}"
            )
        device = _usable_device(device)
        seed = int(getattr(sampler, "seed", 0))
        self._rank, self._world, self._start = rank, world, start
        self._next = start
        policy = FaultPolicy(on_error, seed)
        _check_shards(shards, image_size, on_error)
        store = shards.open_store(mapped=mapped)
        self._parts = StreamParts(
            shards=shards,
            sampler=sampler,
            store=store,
            decoder=open_decoder(decoder, store, size=image_size, threads=threads, device=device, fast=fast),
            memory=pixel_memory(device),
            policy=policy,
            metrics=LoaderMetrics(),
        )
        self._options = StreamOptions(
            image_size=image_size,
            h=h,
            chunk=chunk,
            ahead=ahead,
            prefetch=LOCAL_PREFETCH if shards.remote is None else REMOTE_PREFETCH,
            seed=seed,
        )
        self._episode: Episode | None = None
        self._process = os.getpid()
        self._streams: list[EpisodeStream] = []  # the one in use, if any; shared with the finalizer
        self._close = weakref.finalize(self, _close_all, self._streams, self._parts.decoder, store)

    def __iter__(self) -> Iterator[Episode]:
        """Episodes from the next one on; asking for one drops what is unread of the one before."""
        while True:
            episode = self._advance()
            if episode is None:
                return
            yield episode

    def __len__(self) -> int:
        """The number of episodes that this rank gets from a finite sampler; TypeError for an endless one."""
        total = len(self._parts.sampler)  # type: ignore[arg-type]
        return len(range(self._start + self._rank, total, self._world))

    def state_dict(self) -> dict[str, int]:
        """The seed and the number of the next episode, the same on every rank.

        An episode is done when its last chunk has been received or the next episode asked for; one that
        is interrupted comes again, whole.
        """
        if self._episode is not None and self._episode.feed.unread == 0:
            return {"seed": self._options.seed, "episode": self._next + self._world}
        return {"seed": self._options.seed, "episode": self._next}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state, saved on any number of ranks; drops what was read ahead."""
        if state["seed"] != self._options.seed:
            raise UsageError(
                f"the state is of a stream with seed {state['seed']} and this sampler has seed "
                f"{self._options.seed}; open the sampler with seed={state['seed']} to go on with that stream"
            )
        if state["episode"] < 0:
            raise UsageError(f"episodes are numbered from 0, and the state says {state['episode']}")
        self._drop_stream()
        self._next = state["episode"]

    @property
    def stats(self) -> Stats:
        """Counts and seconds so far; subtract two for those in between."""
        metrics = self._parts.metrics
        metrics.copying += self._parts.memory.take_copy_seconds()
        metrics.stalled += self._parts.memory.take_stalled_seconds()
        return metrics.read()

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self._parts.memory.device

    def close(self) -> None:
        """End all threads and drop what is unread. Tensors that were handed out stay valid."""
        self._close()

    def __enter__(self) -> EpisodeLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _advance(self) -> Episode | None:
        """The next episode; None when the sampler has no more, after which the stream starts anew."""
        if os.getpid() != self._process:
            raise UsageError(
                "this loader was opened in another process and its threads live there; open it after "
                "the fork, or use EpisodeDataset, which does"
            )
        if not self._close.alive:
            raise UsageError("the loader is closed; open another one")
        if self._episode is not None:
            self._episode.feed.leave()
            self._episode = None
            self._next += self._world
        self._parts.metrics.begin()
        stream = self._stream()
        item = stream.next()
        if isinstance(item, StreamEnd):
            self._drop_stream()
            if item.error is not None:
                raise item.error
            self._next = self._start
            return None
        assert isinstance(item, EpisodeStart)
        self._episode = Episode(item, stream)
        self._parts.metrics.episodes += 1
        return self._episode

    def _stream(self) -> EpisodeStream:
        if not self._streams:
            first = self._next + self._rank
            self._streams.append(EpisodeStream(self._parts, self._options, first, self._world))
        return self._streams[0]

    def _drop_stream(self) -> None:
        if self._episode is not None:
            self._episode.feed.detach()
            self._episode = None
        for stream in self._streams:
            stream.stop()
            stream.join()
        self._streams.clear()


def _close_all(streams: list[EpisodeStream], decoder: ChunkDecoder, store: SampleStore) -> None:
    for stream in streams:
        stream.stop()
    decoder.close()
    for stream in streams:
        stream.join()
    streams.clear()
    store.close()


def _usable_device(device: str | torch.device) -> torch.device:
    """The device with its number; UsageError if there is none."""
    usable = torch.device(device)
    if usable.type not in {"cpu", "cuda"}:
        raise UsageError(f"a loader delivers to cpu or cuda, not to {device}")
    if usable.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"device={str(device)!r} needs a GPU that PyTorch can use, and it finds none; use device='cpu'"
        )
    if usable.type == "cuda" and usable.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return usable


def _check_shards(shards: ShardSet, size: int, on_error: OnError) -> None:
    """Refuse a size that is not stored, and tars that are not whole where every sample is needed."""
    lacking = [
        f"{dataset.manifest.name} holds {', '.join(map(str, dataset.manifest.recipe.sizes))}"
        for dataset in shards
        if size not in dataset.manifest.recipe.sizes
    ]
    if lacking:
        raise UsageError(
            f"image_size={size} is not stored: {'; '.join(lacking)}; choose a size that every dataset "
            f"holds, or build them with --sizes {size}"
        )
    if on_error == "raise":
        shards.check_tars(size)
