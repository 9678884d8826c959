"""Plans become episodes in memory, chunk by chunk: H first, then H-bar, then the queries.

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

from pipeline.decoders.base import Decoder
from pipeline.decoders.choose import DecoderName, open_decoder
from pipeline.episodes import Sampler
from pipeline.errors import UsageError
from pipeline.loader.episode import Episode
from pipeline.loader.faults import OnError, Policy
from pipeline.loader.memory import target_for
from pipeline.loader.receiver import Receiver
from pipeline.loader.stats import Meter, Stats
from pipeline.loader.stream import End, Opening, Options, Parts, Stream
from pipeline.shardset import ShardSet
from pipeline.store.local import Store

__all__ = ["EpisodeLoader"]

LOCAL_FETCH: Final = 4  # chunks; the disk reads while others are decoded
REMOTE_FETCH: Final = 48  # chunks, some ten episodes: a request takes as long as one of them


class EpisodeLoader:
    """A stream of episodes: same seed, same episodes, same order, whatever the settings below.

    It reads in threads of its own, `ahead` chunks in front of the consumer, and stops there until one is
    taken. What is handed out belongs to the consumer for as long as it is held.
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
        """Open a loader; nothing is read before the first episode is asked for.

        image_size: one of the sizes that the shards hold, in pixels.
        h: support images that come first, the ones that carry gradient (with clips: clips).
        chunk: images decoded, copied and handed out at a time, at most; H is one chunk whatever h is.
        device: where the pixels go; "cuda" copies, or decodes, on streams of its own.
        decoder: of JPEG. turbo: libjpeg-turbo in threads. dali: NVIDIA DALI, on the GPU's own engines
            where there is one. auto: turbo on the CPU; on a GPU dali if it is installed.
        threads: that decode; by default one for each available core, on a GPU one less.
        ahead: chunks that may be decoded and not yet taken; the memory that waiting pixels need.
        on_error: a sample that cannot be read or decoded. raise: an error at its chunk. mask: zeros, and
            False in `Chunk.valid`. replace: another sample of its class, always the same one.
        rank, world: this process takes the episodes start + rank, start + rank + world, ...
        fast: turbo decodes JPEG a few per cent faster, some grey levels off.
        mapped: map local shards into memory: faster; one cut short while it is read kills the process.
        """
        if min(chunk, ahead, world) < 1 or h < 0 or start < 0 or not 0 <= rank < world:
            raise UsageError(
                "chunk, ahead and world start at 1, h and start at 0, rank is 0 to world - 1; got "
                f"chunk={chunk}, ahead={ahead}, h={h}, start={start}, rank={rank}, world={world}"
            )
        place = _device(device)
        seed = int(getattr(sampler, "seed", 0))
        self._rank, self._world, self._start = rank, world, start
        self._next = start
        self._policy = Policy(on_error, seed)
        _check_size(shards, image_size)
        store = shards.open_store(mapped=mapped)
        self._parts = Parts(
            shards=shards,
            sampler=sampler,
            store=store,
            decoder=open_decoder(
                decoder, store, size=image_size, threads=threads, device=place, fast=fast
            ),
            target=target_for(place),
        )
        self._options = Options(
            image_size=image_size,
            h=h,
            chunk=chunk,
            ahead=ahead,
            fetch_ahead=LOCAL_FETCH if shards.remote is None else REMOTE_FETCH,
            seed=seed,
        )
        self._meter = Meter()
        self._episode: Episode | None = None
        self._process = os.getpid()
        self._streams: list[Stream] = []  # the one in use, if any; shared with the finalizer
        self._close = weakref.finalize(self, _close, self._streams, self._parts.decoder, store)

    def __iter__(self) -> Iterator[Episode]:
        """Episodes from where the stream stands; asking for one gives up what is unread of the last."""
        while True:
            episode = self._advance()
            if episode is None:
                return
            yield episode

    def __len__(self) -> int:
        """Episodes that this rank gets from a finite sampler; TypeError for an endless one."""
        total = len(self._parts.sampler)  # type: ignore[arg-type]
        return len(range(self._start + self._rank, total, self._world))

    def state_dict(self) -> dict[str, int]:
        """The seed and the next episode, the same on every rank.

        An episode counts as done when its last chunk was taken or the one after it was asked for; one that
        is interrupted comes again, whole.
        """
        if self._episode is not None and self._episode.feed.unread == 0:
            return {"seed": self._options.seed, "episode": self._next + self._world}
        return {"seed": self._options.seed, "episode": self._next}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state, of any number of ranks; what was read ahead is dropped."""
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
        """What has happened so far; subtract two to see what happened in between."""
        self._meter.copying += self._parts.target.copied()
        return self._meter.read()

    @property
    def device(self) -> torch.device:
        """Where the pixels are handed out."""
        return self._parts.target.device

    def close(self) -> None:
        """End all threads and give up what is unread. What was handed out stays valid."""
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
        self._meter.begin()
        opening = self._stream().next()
        if isinstance(opening, End):
            self._drop_stream()
            if opening.error is not None:
                raise opening.error
            self._next = self._start
            return None
        assert isinstance(opening, Opening)
        receiver = Receiver(self._stream(), self._parts, self._policy, self._meter)
        self._episode = Episode(opening, receiver)
        self._meter.episodes += 1
        return self._episode

    def _stream(self) -> Stream:
        if not self._streams:
            first = self._next + self._rank
            self._streams.append(Stream(self._parts, self._options, first, self._world))
        return self._streams[0]

    def _drop_stream(self) -> None:
        if self._episode is not None:
            self._episode.feed.abandon()
            self._episode = None
        for stream in self._streams:
            stream.stop()
            stream.join()
        self._streams.clear()


def _close(streams: list[Stream], decoder: Decoder, store: Store) -> None:
    for stream in streams:
        stream.stop()
    decoder.close()
    for stream in streams:
        stream.join()
    streams.clear()
    store.close()


def _device(device: str | torch.device) -> torch.device:
    found = torch.device(device)
    if found.type not in {"cpu", "cuda"}:
        raise UsageError(f"a loader delivers to cpu or cuda, not to {device}")
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"device={str(device)!r} needs a GPU that PyTorch can use, and it finds none; "
                "use device='cpu'"
            )
        return torch.device(
            "cuda", torch.cuda.current_device() if found.index is None else found.index
        )
    return found


def _check_size(shards: ShardSet, size: int) -> None:
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
