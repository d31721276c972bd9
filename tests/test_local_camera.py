"""Which move a prompt asks for, and where the camera looks while it makes it."""

from __future__ import annotations

import pytest

from batch.local.camera import DRIFT, STATIC, Motion, motion_of, views

LEFT, RIGHT, UP, DOWN = Motion(x=-1), Motion(x=1), Motion(y=-1), Motion(y=1)
IN, OUT = Motion(zoom=1), Motion(zoom=-1)


@pytest.mark.parametrize(
    ("prompt", "motion"),
    [
        ("a cat, camera pans left", LEFT),
        ("a cat, camera pans right", RIGHT),
        ("a cat, camera tilts up", UP),
        ("a cat, camera tilts down", DOWN),
        ("a cat, camera zooms in", IN),
        ("a cat, camera zooms out", OUT),
        ("a cat, camera static", STATIC),
        ("Panning slowly to the LEFT over a market", LEFT),
        ("the camera is tilting gently upwards", UP),
        ("slow push-in, leaves trembling", IN),
        ("pull back to reveal the valley", OUT),
        ("dolly in on the face", IN),
        ("dolly out from the face", OUT),
        ("static shot of a lake", STATIC),
        ("fixed camera, a lake", STATIC),
        ("the camera pans left and zooms in", Motion(x=-1, zoom=1)),
        ("a cat asleep on a panel, left of the door", DRIFT),
        ("people zoom past while the camera tilts down", DOWN),
        ("", DRIFT),
    ],
)
def test_the_prompt_names_the_move(prompt: str, motion: Motion) -> None:
    assert motion_of({"prompt": prompt}) == motion


def test_a_fixed_camera_beats_the_prompt() -> None:
    assert motion_of({"prompt": "camera pans left", "camera_fixed": True}) == STATIC
    assert motion_of({"prompt": "camera pans left", "camera_fixed": False}) == LEFT


@pytest.mark.parametrize("motion", [LEFT, RIGHT, UP, DOWN, IN, OUT, STATIC, DRIFT, Motion(x=1, y=-1, zoom=-1)])
def test_no_view_leaves_the_picture(motion: Motion) -> None:
    for seed in range(50):
        for view in views(motion, seed, 30):
            assert 0.5 < view.size <= 1.0
            assert view.left >= 0.0
            assert view.top >= 0.0
            assert view.left + view.size <= 1.0 + 1e-9
            assert view.top + view.size <= 1.0 + 1e-9


def test_a_move_only_goes_its_own_way_and_never_back() -> None:
    path = views(RIGHT, 3, 49)
    lefts = [view.left for view in path]
    assert lefts == sorted(lefts)
    assert lefts[-1] - lefts[0] > 0.1
    assert {view.top for view in path} == {path[0].top}


def test_a_static_camera_does_not_move_at_all() -> None:
    assert len(set(views(STATIC, 5, 49))) == 1


def test_the_seed_decides_the_path() -> None:
    assert views(LEFT, 1, 10) == views(LEFT, 1, 10)
    assert views(LEFT, 1, 10) != views(LEFT, 2, 10)


def test_one_frame_is_a_path_too() -> None:
    assert len(views(IN, 1, 1)) == 1
