"""What the trainer does on a GPU, as far as it can be shown without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from clip_makers import FEATURES
from torch import Tensor
from trainer_makers import Net, Squares, cut, small_trainer

from training.loop import Trainer, TrainingConfig, delivery, runtime
from training.loop.augment import AugmentConfig, SpectralAugment, WaveAugment
from training.loop.callbacks import NonFiniteLossError
from training.loop.delivery import Courier, Delivery, Fill, Plan
from training.loop.distributed import World, joined
from training.loop.loggers.profiler import SectionProfiler
from training.loop.optimisers import make_scaler
from training.model import checkpoint
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss
from training.model.precision import whole_float32

CUDA = torch.device("cuda", 1)


# Steps that wait for nothing. A tensor on "meta" has no values: whoever asks for one fails, and on
# a GPU would have waited.


@pytest.fixture
def no_dirichlet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixup draws from one, which PyTorch has no form of without values."""
    monkeypatch.setattr(torch, "_sample_dirichlet", torch.rand_like)


@pytest.mark.parametrize(
    ("settings", "augment"),
    [
        ({}, {}),
        ({"accumulate_steps": 3, "ema_decay": 0.9}, {"mixup": 0.5, "overlay": 0.5}),
        ({"task": "multiclass", "optimiser": "rmsprop"}, {"mixup": 0.5}),
    ],
)
def test_a_step_asks_the_device_for_no_value(
    settings: dict[str, Any], augment: dict[str, Any], no_dirichlet: None
) -> None:
    config = TrainingConfig(log_every=10**6, **settings)
    varied = AugmentConfig(**augment)
    on_waves = WaveAugment(varied, FEATURES, task=config.task)
    model = DrumClassifier(FEATURES, ModelConfig(n_classes=3), augment=SpectralAugment(varied))
    length = FEATURES.read_samples + 2 * on_waves.margin
    shapes = {"labels": (8, 3), "annotated": (8, 3), "velocity": (8,), "openness": (8,)}

    def batch() -> tuple[Tensor, dict[str, Tensor]]:
        audio = torch.empty(8, length, dtype=torch.int16, device="meta")
        return audio, {name: torch.empty(size, device="meta") for name, size in shapes.items()}

    trainer = Trainer(
        model, [batch()], None, config, DrumLoss(task=config.task), augment=on_waves, device="meta"
    )
    for _ in range(2):
        trainer._train_step([batch() for _ in range(config.accumulate_steps)])
    with pytest.raises(NotImplementedError, match="meta"):  # a look does ask
        trainer._check_pending()


# Pinned buffers


class LateCourier(Courier):
    """Copies as late as a GPU with much to do: when somebody waits for it, or at the end."""

    def __init__(self) -> None:
        self.handed_over: list[Any] = []
        self.buffers = 0

    def buffer(self, clips: int, length: int) -> Tensor:
        self.buffers += 1
        return torch.empty((clips, length), dtype=torch.int16)

    def send(self, rows: Any, clips: Tensor) -> tuple[Delivery, Any]:
        there = torch.from_numpy(rows.copy()), torch.full_like(clips, -1)
        copied: list[bool] = []

        class Sent:
            def synchronize(sent) -> None:
                if not copied:
                    there[1].copy_(clips)
                    copied.append(True)

        return there, Sent()

    def hand_over(self, there: Delivery, sent: Any) -> None:
        self.handed_over.append(sent)


@pytest.mark.parametrize("sizes", [[4] * 12 + [3], [2, 4, 4, 1, 4, 4, 4, 3], [1], []])
def test_a_pinned_buffer_is_not_filled_before_it_has_left(sizes: list[int]) -> None:
    def fills() -> Iterator[tuple[Plan, Fill]]:
        for number, size in enumerate(sizes):
            rows = np.arange(size, dtype=np.int64) + 10 * number

            def fill(out: Any, rows: Any = rows) -> None:
                out[:] = rows[:, None]

            yield Plan(rows, rows), fill

    courier = LateCourier()
    seen = list(delivery._sent(fills(), 5, courier))
    assert len(courier.handed_over) == len(sizes)
    for sent in courier.handed_over:
        sent.synchronize()
    assert [len(rows) for rows, _ in seen] == sizes
    for rows, clips in seen:
        assert torch.equal(clips.long(), rows[:, None].expand(-1, 5))
    assert courier.buffers <= len(sizes[:3]) + sum(size > sizes[0] for size in sizes)


# Resuming


def test_a_run_is_read_into_main_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the GPU an optimiser that is not fused would wait for its count of steps, each step."""
    small_trainer(tmp_path / "run.pth", epochs=1).train()
    places: list[Any] = []
    load = torch.load

    def watched(path: Any, *, map_location: Any, **named: Any) -> Any:
        places.append(torch.device(map_location))
        return load(path, map_location=map_location, **named)

    monkeypatch.setattr(checkpoint.torch, "load", watched)
    small_trainer(tmp_path / "run.pth", epochs=1).load_checkpoint(tmp_path / "run.pth")
    assert places == [torch.device("cpu")]


def scaled(trainer: Trainer, begin: float = 2.0**16) -> Trainer:
    """Let a run on a CPU scale its loss, as fp16 does on a GPU."""
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=begin)
    trainer._stepper.scaler = trainer.scaler
    return trainer


def test_a_run_without_scaling_goes_on_with_it(tmp_path: Path) -> None:
    """Begun on a CPU, which does not scale, gone on with on a GPU in fp16; and back again."""
    for before, after in ((False, True), (True, False)):
        one, other = (small_trainer(tmp_path / "run.pth", epochs=2) for _ in range(2))
        one, other = (scaled(one) if before else one), (scaled(other) if after else other)
        one.train_epoch()
        other.load_checkpoint(tmp_path / "run.pth")
        assert len(other.train()) == 2


def test_a_gradient_that_overflows_once_lowers_the_scale() -> None:
    trainer = scaled(small_trainer(epochs=1, ema_decay=0.5))
    weight = next(trainer.model.parameters())
    left = iter([True, False] + [True] * 10)
    weight.register_hook(lambda grad: grad if next(left) else grad * torch.inf)
    (line,) = trainer.train()
    assert trainer.scaler.get_scale() == 2.0**15
    assert np.isfinite(line["train_loss"])


def test_a_gradient_that_overflows_whatever_the_scale_ends_the_run() -> None:
    trainer = scaled(small_trainer(epochs=20, log_every=4))
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(NonFiniteLossError, match=r"the gradient is not finite at step 29;"):
        # 2 ** 16 halved 30 times is the first below 1e-4.
        trainer.train()


# Set-up


def test_processes_on_gpus_name_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.append(("set", device)))
    monkeypatch.setattr(
        dist, "init_process_group", lambda kind, **named: told.append((kind, named["device_id"]))
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with joined(torch.device("cuda")) as (_, device):
        assert device == CUDA
    assert told == [("set", CUDA), ("nccl", CUDA)]


@pytest.mark.parametrize(
    ("settings", "has_bf16", "said"),
    [
        ({}, True, ()),
        ({}, False, ("amp_dtype: this GPU has no bf16 and would imitate it, slowly; set fp16",)),
        ({"amp_dtype": "fp16"}, False, ()),
        ({"amp": False}, False, ()),
    ],
)
def test_a_gpu_that_only_imitates_bf16_is_named(
    settings: Any, has_bf16: bool, said: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    assert runtime.notes(Net(), TrainingConfig(**settings), World(), CUDA) == said


def test_float32_is_whole_on_a_gpu_and_as_it_was_afterwards() -> None:
    cudnn = torch.backends.cudnn
    assert cudnn.allow_tf32
    with whole_float32(torch.device("cpu")):
        assert cudnn.allow_tf32
    with whole_float32(CUDA):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32
    with runtime.algorithms(TrainingConfig(), CUDA):
        assert not cudnn.allow_tf32
    assert cudnn.allow_tf32


def test_where_tf32_is_set_for_one_kind_of_operation_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Mixed:
        @property
        def allow_tf32(self) -> bool:
            raise RuntimeError("a mix of the legacy and new APIs")

    monkeypatch.setattr(torch.backends, "cudnn", Mixed())
    with whole_float32(CUDA):
        pass


def test_fp16_scales_on_a_gpu_alone() -> None:
    config = TrainingConfig(amp_dtype="fp16")
    assert not make_scaler(config, torch.device("cpu")).is_enabled()
    assert not make_scaler(TrainingConfig(), torch.device("cpu")).is_enabled()


def test_marks_on_a_gpu_are_made_on_the_stream_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of the GPU that happens to be the process's current one."""
    recorded: list[Any] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:
            recorded.append(stream)

        def elapsed_time(self, other: Any) -> float:
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ("stream of", device))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: recorded.append(device))
    profiler = SectionProfiler(CUDA, warm_up=0)
    for _ in range(3):
        with profiler.section("forward"):
            pass
        profiler.next_step()
    assert profiler.summary()["sections"]["forward"]["device_s"] == pytest.approx(0.004)
    assert set(recorded) == {("stream of", CUDA), CUDA}


# Compiling


@contextmanager
def compiled_by(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, bool]]) -> Iterator[None]:
    """Compile with a backend that only notes the batch size and whether gradients are wanted."""

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        sizes = [len(x) for x in inputs if not isinstance(x, torch.nn.Parameter) and x.ndim]
        seen.append((sizes[-1], torch.is_grad_enabled()))
        return graph.forward

    whole = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, *, mode, dynamic: whole(function, backend=backend, dynamic=dynamic),
    )
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_each_batch_size_is_compiled_for_itself_and_only_to_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, bool]] = []
    with compiled_by(monkeypatch, seen):
        batches = cut(9)  # 9, 9 and 6
        config = TrainingConfig(epochs=3, compile=True, monitor="val_loss", mode="min")
        trainer = Trainer(Net(), batches, cut(5), config, Squares())
        trainer.train()
        trainer.evaluate(trainer.model)
        assert seen == [(9, True), (6, True)]
