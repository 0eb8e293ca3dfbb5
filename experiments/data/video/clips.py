"""Clips of videos, decoded with PyAV (FFmpeg) when they are asked for."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import torch
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from torch.utils.data import Dataset

SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")


class VideoError(ValueError):
    """A file that has no clip in it; the message says why."""


class Video(NamedTuple):
    """A file and the index of its class."""

    file: Path
    label: int


class Clip(NamedTuple):
    """Which frames a clip has: so many, every so-many-th."""

    frames: int
    stride: int

    @property
    def span(self) -> int:
        """Frames of the video from its first to its last."""
        return (self.frames - 1) * self.stride + 1


def count_frames(file: Path) -> int:
    """How many frames a video has, by what its container says; only the file's head is read.

    Raises:
        VideoError: if it is empty, no video, or has one frame only.
    """
    try:
        if not os.path.getsize(file):
            raise VideoError("the file is empty")
        with av.open(os.fspath(file)) as container:
            return _count(container)
    except (FFmpegError, OSError, IndexError) as error:
        raise VideoError("it is no video that can be opened") from error


def _count(container: "av.container.InputContainer") -> int:
    stream = container.streams.video[0]
    seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / av.time_base
    frames = stream.frames or round(seconds * (stream.average_rate or 0))
    if frames == 1:
        raise VideoError("it has one frame only, and nothing moves in one")
    if frames < 1:
        raise VideoError("it has no frames")
    return frames


def read_clip(file: Path, clip: Clip, start: Callable[[int], int]) -> torch.Tensor:
    """Decode one clip, from the last key frame before it on.

    Args:
        file: the video.
        clip: which frames. If the video is too short for them, its last frame is held.
        start: the first frame, of so many that it may be.

    Returns:
        uint8 of (frames, 3, height, width).

    Raises:
        VideoError: if there is none, or it breaks off before the clip.
    """
    try:
        with av.open(os.fspath(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the loader's workers are the threads
            count = _count(container)
            first = start(max(1, count - clip.span + 1))
            wanted = [min(first + place * clip.stride, count - 1) for place in range(clip.frames)]
            rate, begins = stream.average_rate, stream.start_time or 0
            if first:
                container.seek(begins + int(first / rate / stream.time_base), stream=stream)
            found: dict[int, torch.Tensor] = {}
            convert = VideoReformatter().reformat  # one for all frames: making one costs more than decoding a small frame
            for frame in container.decode(stream):
                index = round((frame.pts - begins) * stream.time_base * rate) if frame.pts is not None else len(found)
                if index in wanted:
                    found[index] = torch.from_numpy(convert(frame, format="rgb24", threads=1).to_ndarray())
                if index >= wanted[-1]:
                    break
    except (FFmpegError, OSError, IndexError) as error:
        raise VideoError("it cannot be decoded") from error
    if not found:
        raise VideoError("it breaks off before the clip")
    held, frames = found[min(found)], []
    for index in wanted:
        held = found.get(index, held)  # of a frame that is not there: the one before it
        frames.append(held)
    return torch.stack(frames).permute(0, 3, 1, 2)


class ClipSet(Dataset):
    """Clips of videos with the videos' classes.

    A video that breaks while it is read gives its place to the next one, which is said once.

    Args:
        videos: the files.
        clip: which frames.
        transform: makes floats (frames, 3, side, side) of what `read_clip` gives.
        clips: of each video, evenly spaced; None: one at a random place.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        clip: Clip,
        transform: Callable[[torch.Tensor], torch.Tensor],
        clips: int | None = None,
    ) -> None:
        self.videos = videos
        self.clip = clip
        self.transform = transform
        self.clips = clips
        self._said = False

    def __len__(self) -> int:
        return len(self.videos) * (self.clips or 1)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        for place in range(index, index + len(self)):
            number, which = divmod(place % len(self), self.clips or 1)
            video = self.videos[number]
            try:
                pixels = read_clip(video.file, self.clip, lambda places, which=which: self._start(places, which))
            except VideoError as error:
                self._say(video.file, error)
                continue
            return self.transform(pixels).transpose(0, 1), video.label
        raise VideoError(f"None of the {len(self.videos)} videos can be read any more, the first {self.videos[0].file}.")

    def _start(self, places: int, which: int) -> int:
        """The first frame of a clip: the middle of the place's share, or a random one."""
        if self.clips is None:
            return int(torch.randint(places, ()))
        return int((which + 0.5) * (places - 1) / self.clips)

    def _say(self, file: Path, error: VideoError) -> None:
        if not self._said:
            self._said = True
            warnings.warn(
                f"{file} was skipped: {error}. The next video takes its place; said once, of the first.", stacklevel=3
            )
