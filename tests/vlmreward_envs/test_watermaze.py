import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward_envs.watermaze import (
    Action,
    WatermazeTasks,
    no_adaptation_return,
    platform_positions,
)
from vlmreward_envs.watermaze.arena import (
    ARENA_RADIUS,
    CLEARANCE,
    EPISODE_LENGTH,
    NUM_HEADINGS,
    PLATFORM_RADIUS,
    PLATFORM_RING,
    STEP_LENGTH,
    move,
    search_places,
)
from vlmreward_envs.watermaze.first_person import cast_rays, draw_views
from vlmreward_envs.watermaze.walls import (
    EYE_HEIGHT,
    NUM_PLACES,
    WALL_HEIGHT,
    wall_places,
    wall_texture,
)

REACH = ARENA_RADIUS - CLEARANCE
FORWARDS = torch.tensor([Action.FORWARD])


def pool(position=(0.0, 0.0), heading=0, platform=(3.0, 0.0)):
    """One pool by hand."""
    tasks = WatermazeTasks(torch.tensor([0]), torch.tensor([0]))
    tasks.position, tasks.heading = torch.tensor([position]), torch.tensor([heading])
    tasks.platform = torch.tensor([platform])
    return tasks


def play(tasks, *actions):
    return [tasks.advance(torch.tensor([int(action)])).item() for action in actions]


def unit(turns):
    """The direction that many sixteenths of a turn anticlockwise from x."""
    angle = turns * 2 * math.pi / 16
    return np.array((math.cos(angle), math.sin(angle)))


def random_states(num, seed=0):
    """Positions anywhere an agent can be, and headings."""
    generator = torch.Generator().manual_seed(seed)
    points = REACH * (2 * torch.rand(4 * num, 2, generator=generator) - 1)
    inside = points[points.norm(dim=1) <= REACH][:num]
    return inside, torch.randint(NUM_HEADINGS, (num,), generator=generator)


def test_sizes_are_the_papers():
    tasks = WatermazeTasks(torch.arange(2), torch.arange(2))
    assert (tasks.num_actions, tasks.episode_length) == (8, 50)
    assert tasks.reset().shape == (2, 72, 96, 3) == (2, *tasks.observation_shape)
    assert tasks.observe().dtype == torch.uint8 == tasks.observation_dtype
    assert not hasattr(tasks, "observation_sizes")


# What each action turns, and where it then goes, in sixteenths of a turn from the new heading.
MEANINGS = {
    Action.FORWARD: (0, 0),
    Action.BACKWARD: (0, 8),
    Action.LEFT: (0, 4),
    Action.RIGHT: (0, -4),
    Action.ROTATE_LEFT: (1, None),
    Action.ROTATE_RIGHT: (-1, None),
    Action.ROTATE_LEFT_FORWARD: (1, 0),
    Action.ROTATE_RIGHT_FORWARD: (-1, 0),
}


@pytest.mark.parametrize("heading", [0, 3, 15])
@pytest.mark.parametrize("action", Action)
def test_actions_turn_and_move_as_they_say(action, heading):
    tasks = pool((0.5, -1.0), heading)
    play(tasks, action)
    turn, way = MEANINGS[action]
    expected = np.array((0.5, -1.0))
    if way is not None:
        expected = expected + STEP_LENGTH * unit(heading + turn + way)
    assert tasks.heading.tolist() == [(heading + turn) % 16]
    assert tasks.position[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_a_wall_stops_who_walks_straight_at_it():
    tasks = pool((4.3, 0.0), heading=0)
    play(tasks, Action.FORWARD, Action.FORWARD)
    assert tasks.position.tolist() == [[REACH, 0.0]]


def test_who_walks_at_the_wall_askance_slides_along_it():
    tasks = pool((REACH, 0.0), heading=2)
    play(tasks, Action.FORWARD)
    beyond = np.array((REACH, 0.0)) + STEP_LENGTH * unit(2)
    expected = beyond * REACH / np.linalg.norm(beyond)
    assert tasks.position[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert tasks.position[0, 1] > 0.1


@settings(max_examples=25)
@given(st.lists(st.sampled_from(Action), min_size=50, max_size=50), st.integers(0, 15))
def test_nobody_leaves_the_pool_or_moves_too_far(actions, heading):
    position, headings = torch.zeros(1, 2), torch.tensor([heading])
    for action in actions:
        before = position
        position, headings = move(position, headings, torch.tensor([action]))
        assert position.norm() <= REACH + 1e-6
        assert (position - before).norm() <= STEP_LENGTH + 1e-6
        assert 0 <= headings.item() < 16


def test_depth_at_the_centre_is_known_by_hand():
    depth, hit = cast_rays(torch.zeros(16, 2), torch.arange(16))
    to_right = (np.arange(96) - 47.5) / 48  # 90° wide: the edges are at ±1
    assert depth.numpy() == pytest.approx(np.tile(5 / np.sqrt(1 + to_right**2), (16, 1)), abs=1e-5)
    angles = -np.arctan(to_right) + np.arange(16)[:, None] * np.pi / 8
    expected = 5 * np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    assert hit.numpy() == pytest.approx(expected, abs=1e-5)


def test_a_wall_straight_ahead_is_as_far_as_it_is():
    depth, hit = cast_rays(torch.tensor([[3.0, 0.0], [0.0, -1.0]]), torch.tensor([0, 4]))
    # The two columns beside the middle look half a pixel aside.
    assert depth[:, 47:49].numpy() == pytest.approx(np.array([[2.0] * 2, [6.0] * 2]), abs=2e-3)
    assert hit[0, 0, 1] > 0 > hit[0, 95, 1]  # facing x, the left of the frame is up on the map


def test_rays_end_on_the_wall_where_walking_along_them_ends():
    position, heading = random_states(200)
    depth, hit = (part.double() for part in cast_rays(position, heading))
    assert hit.norm(dim=2).numpy() == pytest.approx(np.full((200, 96), 5.0), abs=1e-5)
    for row in range(0, 200, 20):
        ahead, right = unit(heading[row].item()), unit(heading[row].item() - 4)
        for column in (0, 13, 95):
            ray = ahead + (column - 47.5) / 48 * right
            near, far = 0.0, 10.0
            for _ in range(60):  # bisection
                middle = (near + far) / 2
                beyond = np.linalg.norm(position[row].numpy() + middle * ray) > 5
                near, far = (near, middle) if beyond else (middle, far)
            assert depth[row, column].item() == pytest.approx(near, abs=1e-5)


def test_the_wall_stands_between_sky_and_water_where_perspective_puts_it():
    """Rim and foot are where a pinhole camera of focal length 48 sees them."""
    # From one end of the pool to the other the wall is smallest: all else is sky and water.
    plain = draw_views(torch.tensor([[-REACH, 0.0]]), torch.tensor([0]))[0, :, 47].int()
    position, heading = random_states(300)
    frames = draw_views(position, heading).int()
    depth = cast_rays(position, heading)[0]
    is_plain = (frames - plain[:, None]).abs().amax(dim=3) == 0
    sky = is_plain[:, :26].int().cumprod(dim=1).sum(dim=1)
    water = is_plain[:, 43:].int().flip(1).cumprod(dim=1).sum(dim=1)
    rim = 36 - (WALL_HEIGHT - EYE_HEIGHT) * 48 / depth
    foot = 36 - EYE_HEIGHT * 48 / depth
    assert (sky - rim.clamp(0, 26)).abs().max() <= 1.3
    assert (water - foot.clamp(0, 29)).abs().max() <= 1.3
    assert (sky - rim.floor().clamp(0, 26)).abs().float().mean() < 0.1


def test_places_on_the_wall_are_angles():
    angles = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    points = 3 * torch.stack((angles.cos(), angles.sin()), dim=1)
    expected = angles / (2 * math.pi) * NUM_PLACES
    off = (wall_places(points) + 0.5 - expected).abs()
    assert torch.minimum(off, NUM_PLACES - off).max() <= 0.65
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, -1e-9]])
    assert wall_places(corners).tolist() == [0, 144, 288, 432, 575]


def test_no_panel_looks_like_another():
    columns = wall_texture().permute(1, 0, 2).flatten(1)
    panel = torch.arange(NUM_PLACES) // (NUM_PLACES // 12)
    is_pillar = (torch.arange(NUM_PLACES) + 3) % (NUM_PLACES // 12) < 6
    shown, panel = columns[~is_pillar], panel[~is_pillar]
    gap = torch.cdist(shown, shown) / math.sqrt(columns.shape[1])
    assert gap[panel[:, None] != panel].min() > 12  # grey levels, as a root mean square


def test_one_frame_tells_where_one_is_and_which_way_one_faces():
    """The most similar of 6000 other frames was seen from nearby, and facing the same way."""
    position, heading = random_states(6200)
    small = draw_views(position, heading)[:, 3::6, 3::6].float().flatten(1)
    nearest = torch.cdist(small[:200], small[200:]).argmin(dim=1) + 200
    distance = (position[:200] - position[nearest]).norm(dim=1)
    turn = (heading[:200] - heading[nearest] + 8) % 16 - 8
    assert (turn.abs() <= 1).float().mean() > 0.98
    assert distance.median() < 0.4  # of 400 in the same heading on 64 m², the nearest is 0.2 m off


def test_a_frame_is_the_same_bytes_alone_and_among_thousands():
    tasks = WatermazeTasks(torch.arange(3001), torch.arange(3001))
    generator = torch.Generator().manual_seed(0)
    actions = torch.randint(8, (40, 3001), generator=generator)
    for row in actions:
        tasks.advance(row)
    frames = tasks.observe()
    for index in (0, 1517, 3000):
        one = torch.tensor([index])
        alone = WatermazeTasks(one, one)
        for row in actions:
            alone.advance(row[index : index + 1])
        assert torch.equal(alone.position, tasks.position[index : index + 1])
        assert torch.equal(alone.observe()[0], frames[index])


def test_platforms_are_uniform_on_their_ring_and_belong_to_their_id():
    ids = torch.arange(20_000)
    platform = platform_positions(ids)
    distance = platform.norm(dim=1)
    low, high = PLATFORM_RING
    assert low <= distance.min()
    assert distance.max() <= high == ARENA_RADIUS - PLATFORM_RADIUS
    share = (distance**2 - low**2) / (high**2 - low**2)  # of the ring's area that lies inside
    turn = torch.atan2(platform[:, 1], platform[:, 0]) / (2 * math.pi) + 0.5
    for uniform in (share, turn):
        counts = torch.bincount((20 * uniform).long().clamp(0, 19), minlength=20)
        # Chi-squared with 19 degrees of freedom: 56 is its 1 - 1e-5 quantile.
        assert ((counts - 1000.0) ** 2 / 1000).sum() < 56
    assert torch.equal(platform_positions(ids[777:778]), platform[777:778])
    tasks = WatermazeTasks(ids[:5], seeds=torch.full((5,), 99))
    assert torch.equal(tasks.platform, platform[:5])


def test_the_first_step_on_the_platform_pays_and_no_other():
    edge = PLATFORM_RADIUS + 1.5 * STEP_LENGTH  # one step short of it, then on it
    tasks = pool(platform=(edge, 0.0))
    forward, back = Action.FORWARD, Action.BACKWARD
    assert play(tasks, forward, forward, forward, back, back, forward) == [0, 1, 0, 0, 0, 0]
    assert tasks.paid.all()
    tasks.begin_episode(1)
    assert not tasks.paid.any()
    tasks.heading = torch.tensor([0])
    assert play(tasks, forward, forward) == [0, 1]


@pytest.mark.parametrize(
    ("off", "reward"), [(PLATFORM_RADIUS - 1e-4, 1), (PLATFORM_RADIUS + 1e-4, 0)]
)
def test_a_platform_reaches_as_far_as_its_radius(off, reward):
    tasks = pool(platform=(STEP_LENGTH + off * 0.6, off * 0.8))
    assert play(tasks, Action.FORWARD) == [reward]


def test_the_platform_cannot_be_seen():
    frames = [pool(platform=platform).observe() for platform in ((1.0, 0.0), (-3.0, 2.0))]
    assert torch.equal(*frames)


def test_episodes_start_in_the_middle_facing_any_way():
    ids = torch.arange(16_000)
    tasks = WatermazeTasks(ids, ids)
    first = tasks.heading
    assert not tasks.position.any()
    tasks._begin()
    assert torch.equal(tasks.heading, first)
    tasks.episode = 1
    tasks._begin()
    counts = torch.bincount(16 * first + tasks.heading, minlength=256)
    # Both headings of a pair are uniform and independent: 385 is the 1 - 1e-6 quantile at 255.
    assert ((counts - 62.5) ** 2 / 62.5).sum() < 385


def test_every_platform_is_reached_in_time_from_every_start():
    ids = torch.arange(2000).repeat_interleave(16)
    tasks = WatermazeTasks(ids, ids)
    tasks.heading = torch.arange(16).repeat(2000)
    steps = torch.zeros(len(ids))
    earned = torch.zeros(len(ids))
    for _ in range(50):
        steps += ~tasks.paid
        earned += tasks.advance(tasks.optimal_actions())
    assert torch.equal(earned, tasks.optimal_returns())
    assert 13 < steps.mean() < 15
    assert steps.max() <= 25
    assert ((steps >= 7) & (steps <= 21)).float().mean() > 0.85


def test_a_random_walker_rarely_finds_it():
    tasks = WatermazeTasks(torch.arange(20_000), torch.arange(20_000))
    actions = torch.randint(8, (50, 20_000), generator=torch.Generator().manual_seed(0))
    earned = sum(tasks.advance(row) for row in actions)
    assert 0.05 < earned.mean() < 0.07


def test_who_forgets_stays_below_the_bound_and_comes_near_it():
    """A search that heeds nothing: out a little, then in a circle midway."""
    ids = torch.arange(50_000)
    tasks = WatermazeTasks(ids, ids)
    straight, turn = Action.FORWARD, Action.ROTATE_LEFT_FORWARD
    plan = [*[straight] * 9, *[turn] * 4, *[*[straight] * 3, turn] * 10][:50]
    earned = sum(tasks.advance(torch.full((50_000,), int(action))) for action in plan)
    assert 0.97 * no_adaptation_return() < earned.mean() < no_adaptation_return()


def test_the_bound_is_the_area_that_steps_can_sweep():
    """The crescent recomputed by counting points of a fine grid."""
    line = np.arange(-1.0, 1.0, 0.001) + 0.0005
    x, y = np.meshgrid(line, line)
    now = (x - STEP_LENGTH) ** 2 + y**2 <= PLATFORM_RADIUS**2
    crescent = (now & (x**2 + y**2 > PLATFORM_RADIUS**2)).sum() * 0.001**2
    ring = math.pi * (4.4**2 - 1.5**2)
    # After three steps one is 0.75 from the centre, and still 0.15 short of the nearest platform.
    assert no_adaptation_return() == pytest.approx(47 * crescent / ring, rel=1e-3)


def test_the_picture_shows_platform_agent_and_view():
    tasks = pool((0.0, 0.0), heading=0, platform=(3.0, 0.0))

    def at(x, y):
        frame = tasks.render()[0]
        return frame[round(111.5 - 18 * y), round(111.5 + 18 * x)].tolist()

    assert at(3.0, 0.0) == [250, 220, 40]
    in_view, behind = at(1.5, 0.0), at(-1.5, 0.0)
    assert min(np.subtract(in_view, behind)) > 20
    assert at(0.0, 0.1) == [250, 245, 228]
    for _ in range(10):
        tasks.advance(FORWARDS)
    assert tasks.paid.all()
    assert at(3.0, 0.3) == [195, 195, 200]


def test_bad_input_is_named():
    one = torch.tensor([0])
    with pytest.raises(ValueError, match=r"seeds of shape \(2,\), expected one for each of the 1"):
        WatermazeTasks(one, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no task ids"):
        WatermazeTasks(one[:0], one[:0])


def test_hardly_any_platform_is_far_from_all_places_and_each_place_can_be_reached():
    places = search_places(torch.device("cpu"))
    platforms = platform_positions(torch.arange(20_000))
    nearest = torch.cdist(platforms, places).amin(dim=1)
    assert (nearest > PLATFORM_RADIUS).float().mean() < 0.01
    assert nearest.max() < 1.2 * PLATFORM_RADIUS
    apart = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert apart.amin() == pytest.approx(0.9, abs=1e-4)
    indices = torch.arange(len(places))
    tasks = WatermazeTasks(indices, indices)
    assert not tasks.places_seen().any()
    seen = tasks.places_seen()
    for _ in range(EPISODE_LENGTH - 1):
        tasks.advance(tasks.actions_towards(indices))
        seen |= tasks.places_seen()
    assert tasks.num_places == len(places)
    assert seen[indices, indices].all()
