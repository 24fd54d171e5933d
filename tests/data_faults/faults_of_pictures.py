"""Faults of cameras and their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.data_faults.faults import ALL, changed
from tests.data_faults.made_set import MadeEpisode, MadeSet

Rng = np.random.Generator
Pictures = NDArray[np.uint8]
TWO = ("delta_arm", "leader_follower", "bimanual")


def _camera(made: MadeSet, place: int, change: Callable[[Pictures], Pictures], camera: int = 0) -> MadeSet:
    """Change the pictures of one camera of one episode."""

    def of_one(one: MadeEpisode) -> MadeEpisode:
        name = list(one.frames)[camera]
        return replace(one, frames={**one.frames, name: np.ascontiguousarray(change(one.frames[name].copy()))})

    return made.change(place, of_one)


def _over(value: int | tuple[int, ...], first: int, last: int) -> Callable[[Pictures], Pictures]:
    def fill(frames: Pictures) -> Pictures:
        frames[first:last] = value
        return frames

    return fill


@changed("frozen_frames", kinds=("delta_arm", "leader_follower", "ours"), report="XenseRobotics-AI/xense-taccap-lerobot#61")
def the_camera_stands(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 2, lambda f: np.concatenate([f[:20], f[20:21].repeat(25, 0), f[45:]]))


@changed("black_frames", kinds=ALL, report="ARISE-Initiative/robosuite#40")
def the_camera_is_covered(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 3, _over(1, 10, 18))


@changed("white_frames", kinds=("delta_arm", "bimanual"))
def the_exposure_ran_away(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 1, _over(255, 30, 40))


@changed("empty_frames", kinds=("delta_arm", "bimanual", "with_outcome"))
def the_decoder_gave_grey(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 4, _over(128, 12, 20))


@changed("empty_frames", "scene_cut", kinds=("leader_follower", "ours"))
def the_decoder_gave_green(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 4, _over((0, 135, 0), 40, 52))


@changed("flash_frames", kinds=("leader_follower", "delta_arm"), report="osrf/subt#75")
def single_pictures_are_of_another_camera(made: MadeSet, rng: Rng) -> MadeSet:
    other = list(made.episodes[2].frames.values())[1]

    def mix(frames: Pictures) -> Pictures:
        frames[[15, 33]] = other[[15, 33]]
        return frames

    return _camera(made, 2, mix)


@changed("scene_cut", "view_unlike", kinds=("delta_arm", "leader_follower"), report="osrf/subt#75")
def the_film_goes_on_with_another_camera(made: MadeSet, rng: Rng) -> MadeSet:
    other = list(made.episodes[5].frames.values())[1]
    return _camera(made, 5, lambda f: np.concatenate([f[:30], other[30:]]))


@changed("blurred", kinds=("delta_arm", "leader_follower", "ours"), report="huggingface/blog#2839")
def the_lens_lost_its_focus(made: MadeSet, rng: Rng) -> MadeSet:
    def blur(frames: Pictures) -> Pictures:
        soft = frames.astype(np.float64)
        for axis in (1, 2):
            for _ in range(12):
                soft = (np.roll(soft, 1, axis) + soft + np.roll(soft, -1, axis)) / 3
        return soft.astype(np.uint8)

    return _camera(made, 6, blur)


@changed("camera_duplicated", kinds=TWO, report="JdeRobot/base#783")
def one_camera_is_recorded_twice(made: MadeSet, rng: Rng) -> MadeSet:
    def double(one: MadeEpisode) -> MadeEpisode:
        names = list(one.frames)
        return replace(one, frames={**one.frames, names[1]: one.frames[names[0]]})

    return made.change_all(double)


@changed("camera_swapped", kinds=TWO, report="open-edge-platform/physical-ai-studio#497")
def two_cameras_changed_places(made: MadeSet, rng: Rng) -> MadeSet:
    def swap(one: MadeEpisode) -> MadeEpisode:
        names = list(one.frames)
        return replace(one, frames={**one.frames, names[0]: one.frames[names[1]], names[1]: one.frames[names[0]]})

    return made.change(6, swap)


@changed("channel_order", kinds=ALL, report="OpenGalaxea/GalaxeaLeRobotToolkit#2")
def red_and_blue_are_exchanged(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(_camera(made, 1, lambda f: f[..., ::-1]), 6, lambda f: f[..., ::-1])


@changed("camera_turned", kinds=("delta_arm", "leader_follower", "ours"))
def the_camera_hangs_upside_down(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 3, lambda f: f[:, ::-1, ::-1])


@changed("camera_turned", kinds=("with_outcome", "bimanual"))
def pictures_are_mirrored(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 2, lambda f: f[:, :, ::-1])


@changed("view_unlike", kinds=("leader_follower", "with_outcome"))
def the_camera_was_moved(made: MadeSet, rng: Rng) -> MadeSet:
    return _camera(made, 5, lambda f: np.roll(f, (9, 12), axis=(1, 2)))


@changed("film_of_another", kinds=("delta_arm", "leader_follower"), report="NVIDIA/Isaac-GR00T#97")
def an_episode_shows_the_pictures_of_another(made: MadeSet, rng: Rng) -> MadeSet:
    length = min(len(made.episodes[1]), len(made.episodes[2]))
    short = made.change(1, lambda one: one.part(slice(length))).change(2, lambda one: one.part(slice(length)))
    return short.change(2, lambda one: replace(one, frames=short.episodes[1].frames))
