"""Samplers against the exact solution for Gaussian data, and against diffusers' own schedulers."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.config.discovery import samplers as offered_samplers
from harness.config.schema import TrialConfig
from harness.sampling import samplers
from harness.sampling.samplers import build_sampler
from harness.sampling.samplers.diffusion import respaced_timesteps
from models.errors import UserError
from models.objectives.base import ObjectiveConfig
from models.objectives.ddpm import Config as DdpmConfig
from models.objectives.flow import Config as FlowConfig
from models.randomness import generator

MEAN, DEVIATION = 0.3, 0.4
FLOW = FlowConfig()
DDPM = DdpmConfig()


def objective_of(name: str) -> ObjectiveConfig:
    return FLOW if name.startswith("flow_") else DDPM


def signal_shares(config: DdpmConfig) -> Tensor:
    betas = torch.linspace(config.beta_start, config.beta_end, config.steps, dtype=torch.float64)
    return (1 - betas).cumprod(0)


def velocity_of_gaussian(images: Tensor, timestep: float) -> Tensor:
    """E[eps - x_0 | x_t] where every pixel of x_0 is N(MEAN, DEVIATION^2)."""
    time = timestep / 1000
    variance = (1 - time) ** 2 * DEVIATION**2 + time**2
    excess = (images - (1 - time) * MEAN) / variance
    return time * excess - (MEAN + (1 - time) * DEVIATION**2 * excess)


def noise_of_gaussian(images: Tensor, share: float) -> Tensor:
    """E[eps | x_t] where every pixel of x_0 is N(MEAN, DEVIATION^2)."""
    variance = share * DEVIATION**2 + 1 - share
    return (1 - share) ** 0.5 / variance * (images - share**0.5 * MEAN)


def walk(name: str, steps: int, start: Tensor, objective: ObjectiveConfig | None = None) -> Tensor:
    objective = objective or objective_of(name)
    sampler = build_sampler(name, steps, objective)
    streams = [generator("walk", index) for index in range(len(start))]
    images = start
    for evaluation, timestep in enumerate(sampler.timesteps.tolist()):
        if isinstance(objective, DdpmConfig):
            share = signal_shares(objective)[int(timestep)].item()
            prediction = noise_of_gaussian(images, share)
        else:
            prediction = velocity_of_gaussian(images, timestep)
        images = sampler.step(evaluation, prediction, images, streams)
    return images


def exact_images(name: str, start: Tensor) -> Tensor:
    """Where the probability-flow ODE takes the starting noise."""
    if name.startswith("flow_"):
        return MEAN + DEVIATION * start
    share = signal_shares(DDPM)[-1].item()
    deviation = (share * DEVIATION**2 + 1 - share) ** 0.5
    return MEAN + DEVIATION * (start - share**0.5 * MEAN) / deviation


@pytest.fixture
def start() -> Tensor:
    return torch.randn(16, 3, 4, 4, generator=generator("start"))


def test_what_a_module_offers_is_read_without_importing_it() -> None:
    for path in Path(samplers.__file__).parent.glob("*.py"):
        if path.stem in ("__init__", "base"):
            continue
        module = importlib.import_module(f"{samplers.__name__}.{path.stem}")
        written = {
            target.id: ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for name in ("NAMES", "OBJECTIVE", "FEWEST_STEPS"):
            assert written.get(name) == getattr(module, name, None)


def test_a_new_family_is_one_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Tensor
) -> None:
    (tmp_path / "mine.py").write_text(
        "from harness.sampling.samplers import flow\n"
        'NAMES = ("my_euler",)\n'
        'OBJECTIVE = "flow"\n'
        "def build(name, steps, objective):\n"
        '    return flow.build("flow_euler", 2 * steps, objective)\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(samplers, "__path__", [*samplers.__path__, str(tmp_path)])
    torch.testing.assert_close(
        walk("my_euler", 5, start, FLOW), walk("flow_euler", 10, start), atol=0, rtol=0
    )
    with pytest.raises(UserError, match="my_euler needs objective.name flow, not ddpm"):
        build_sampler("my_euler", 5, DDPM)


@pytest.mark.parametrize(
    ("name", "order"), [("flow_euler", 1), ("flow_heun", 2), ("ddim", 1), ("dpm_solver", 2)]
)
def test_deterministic_samplers_converge_to_the_exact_map_at_their_order(
    name: str, order: int, start: Tensor
) -> None:
    exact = exact_images(name, start)
    coarse, fine = ((walk(name, steps, start) - exact).abs().mean().item() for steps in (25, 50))
    assert fine < 0.03
    assert coarse / fine > 1.8 if order == 1 else coarse / fine > 2.8


@pytest.mark.parametrize("steps", [5, 30])
def test_ddpm_with_the_true_variance_draws_the_true_distribution(steps: int) -> None:
    """For Gaussian data the reverse step is Gaussian, so any number of steps is exact."""
    shares = signal_shares(DDPM)
    sampler = build_sampler("ddpm", steps, DDPM)
    times = [int(time) for time in sampler.timesteps]
    images = torch.randn(2000, 2, 2, 2, generator=generator("start"))
    streams = [generator("ddpm", index) for index in range(len(images))]
    for evaluation, time in enumerate(times):
        share = shares[time]
        last = evaluation + 1 == len(times)
        next_share = torch.tensor(1.0) if last else shares[times[evaluation + 1]]
        jump = share / next_share
        before = next_share * DEVIATION**2 + 1 - next_share
        true = before * (1 - jump) / (jump * before + 1 - jump)
        largest = (1 - jump).log()
        smallest = ((1 - next_share) / (1 - share) * (1 - jump)).clamp(1e-20).log()
        fraction = 2 * (true.log() - smallest) / (largest - smallest) - 1
        noise = noise_of_gaussian(images, share.item())
        variance = torch.full_like(noise, fraction.item())
        images = sampler.step(evaluation, torch.cat([noise, variance], dim=1), images, streams)
    assert images.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert images.std().item() == pytest.approx(DEVIATION, rel=0.02)
    pixels = images.flatten(1).T.double()
    correlation = torch.corrcoef(pixels) - torch.eye(8)
    assert correlation.abs().max() < 0.1


def test_ddpm_uses_the_predicted_variance() -> None:
    images = torch.randn(200, 1, 4, 4, generator=generator("start"))
    deviations = []
    for fraction in (-1.0, 1.0):
        sampler = build_sampler("ddpm", 5, DDPM)
        streams = [generator("ddpm", index) for index in range(len(images))]
        drawn = images
        for evaluation, time in enumerate(sampler.timesteps.tolist()):
            noise = noise_of_gaussian(drawn, signal_shares(DDPM)[int(time)].item())
            prediction = torch.cat([noise, torch.full_like(noise, fraction)], dim=1)
            drawn = sampler.step(evaluation, prediction, drawn, streams)
        deviations.append(drawn.std().item())
    assert deviations[0] < 0.9 * DEVIATION < 1.1 * DEVIATION < deviations[1]


@pytest.mark.parametrize("steps", [4, 50, 250, 1000])
def test_ddim_equals_the_scheduler_of_that_name_where_steps_divide_the_schedule(
    steps: int, start: Tensor
) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    images = start
    for time in scheduler.timesteps:
        noise = noise_of_gaussian(images, signal_shares(DDPM)[time].item())
        images = scheduler.step(noise, time, images).prev_sample
    torch.testing.assert_close(walk("ddim", steps, start), images, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["ddim", "dpm_solver", "ddpm"])
@pytest.mark.parametrize("schedule", [1000, 77])
def test_any_number_of_steps_goes_down_from_the_noisiest(name: str, schedule: int) -> None:
    objective = DdpmConfig(steps=schedule)
    for steps in {*range(1, min(schedule, 130)), schedule // 2, schedule - 1, schedule}:
        timesteps = build_sampler(name, steps, objective).timesteps
        assert len(timesteps) == steps
        assert timesteps[0] == schedule - 1
        assert timesteps[-1] >= 0
        assert (timesteps.diff() < 0).all()


def dits_timesteps(steps: int, schedule: int) -> list[int]:
    """DiT's respacing: strides of (schedule - 1) / (steps - 1), added up and rounded one by one."""
    place, kept = 0.0, set()
    for _ in range(steps):
        kept.add(round(place))
        place += (schedule - 1) / (steps - 1)
    return sorted(kept, reverse=True)


def test_respaced_timesteps_are_dits_for_every_number_of_steps() -> None:
    for steps in range(2, 1001):
        assert respaced_timesteps(steps, 1000) == dits_timesteps(steps, 1000), steps
    assert respaced_timesteps(21, 1000)[10] == 499


@pytest.mark.parametrize("name", ["ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [61, 1000])
def test_awkward_numbers_of_steps_reach_the_exact_map(name: str, steps: int, start: Tensor) -> None:
    drawn = walk(name, steps, start)
    torch.testing.assert_close(drawn, exact_images(name, start), atol=6 / steps, rtol=0)


@pytest.mark.parametrize("name", [name for name in offered_samplers() if name != "flow_heun"])
def test_one_step_gives_the_predicted_image(name: str, start: Tensor) -> None:
    """From pure noise, the best prediction in one step is the mean of the data."""
    if name == "ddpm":
        sampler = build_sampler(name, 1, DDPM)
        noise = noise_of_gaussian(start, signal_shares(DDPM)[-1].item())
        prediction = torch.cat([noise, torch.ones_like(noise)], dim=1)
        streams = [generator("one", index) for index in range(len(start))]
        drawn = sampler.step(0, prediction, start, streams)
    else:
        drawn = walk(name, 1, start)
    torch.testing.assert_close(drawn, torch.full_like(drawn, MEAN), atol=0.05, rtol=0)


@pytest.mark.parametrize(("steps", "evaluations"), [(3, 5), (10, 19)])
def test_heun_evaluates_twice_a_step_but_the_last(steps: int, evaluations: int) -> None:
    assert len(build_sampler("flow_heun", steps, FLOW).timesteps) == evaluations


@pytest.mark.parametrize("steps", [1, 2])
def test_heun_needs_three_steps(trial_config: Callable[..., TrialConfig], steps: int) -> None:
    with pytest.raises(UserError, match=f"flow_heun needs 3 steps or more, not {steps}"):
        build_sampler("flow_heun", steps, FLOW)
    with pytest.raises(UserError, match=r"sample\.steps must be 3 or more"):
        trial_config("sana", "sample.sampler=flow_heun", f"sample.steps={steps}")


def test_euler_takes_equal_steps_down_to_the_image() -> None:
    timesteps = build_sampler("flow_euler", 4, FLOW).timesteps
    torch.testing.assert_close(timesteps, torch.tensor([1000.0, 750.0, 500.0, 250.0]))


def test_the_noise_schedule_is_the_objectives(start: Tensor) -> None:
    """A walk for another schedule is exact for that one's network, so beta_end must reach it."""
    objective = DdpmConfig(beta_end=0.01)
    share = signal_shares(objective)[-1].item()
    deviation = (share * DEVIATION**2 + 1 - share) ** 0.5
    exact = MEAN + DEVIATION * (start - share**0.5 * MEAN) / deviation
    drawn = walk("dpm_solver", 100, start, objective)
    torch.testing.assert_close(drawn, exact, atol=0.01, rtol=0)


def test_a_sampler_of_the_other_objective_is_refused() -> None:
    with pytest.raises(UserError, match=r"ddim needs objective.name ddpm, not flow"):
        build_sampler("ddim", 10, FLOW)
    with pytest.raises(UserError, match=r"flow_euler needs objective.name flow, not ddpm"):
        build_sampler("flow_euler", 10, DDPM)


def test_more_steps_than_the_schedule_has_are_refused() -> None:
    with pytest.raises(UserError, match=r"sample.steps is 101, but objective.steps is 100"):
        build_sampler("ddim", 101, DdpmConfig(steps=100))


def test_unknown_names_raise_key_error() -> None:
    with pytest.raises(KeyError):
        build_sampler("base", 10, FLOW)
