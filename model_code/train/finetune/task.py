"""strategy=finetune: train the last blocks, or all, on photos, from the best head on frozen features."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from model_code.data.transform import Transform
from model_code.hyperparameters import Value
from model_code.networks.backbone import Backbone, Block
from model_code.networks.head import Head
from model_code.train.distributed import World
from model_code.train.finetune.average import Average
from model_code.train.finetune.loader import Batch
from model_code.train.loop import Schedule
from model_code.train.metrics import Tally
from model_code.train.mixing import Loss, cut, draw_shares, mix, mixed, partners
from model_code.train.optimizer import decayed

_NORMS: Final = (nn.modules.batchnorm._BatchNorm,)
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class FinetuneRecipe:
    """The hyperparameters of fine-tuning; see `model_code.hyperparameters` for their meaning and limits."""

    epochs: int
    patience: int
    learning_rate: float
    backbone_rate: float
    layer_decay: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    mixup: float
    cutmix: float
    batch_size: int
    hidden: int
    warmup: float
    class_weighting: float
    prior: float
    distillation: float
    teacher_temperature: float
    blocks: int
    augmentation: str
    ema: float
    accumulate: int
    precision: str
    seed: int

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Self:
        """From the values that `hyperparameters.resolve` gives."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


class Network(nn.Module):
    """A backbone and the head on it, both trained: normalized photos [n, 3, h, w] to logits [n, classes]."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, photos: Tensor, masks: tuple[Tensor, ...] = ()) -> Tensor:
        """Logits, float32 whatever the arithmetic of the backbone; see `Head.forward` for the masks."""
        features = self.backbone(photos).float()
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features, masks)


def unfreeze(backbone: Backbone, blocks: int) -> list[Block]:
    """Let the last `blocks` blocks be trained (0: all) and nothing else; returns them."""
    backbone.requires_grad_(False)
    chosen = backbone.blocks()[-blocks:] if blocks else backbone.blocks()
    for block in chosen:
        for parameter in block.parameters:
            parameter.requires_grad_(True)
    return chosen


def pick_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic of the forward pass: what is wanted, or for `auto` the fastest that is safe here.

    bfloat16 needs no loss scaling. It only helps where the processor has instructions for it; elsewhere it is
    emulated, several times slower than float32.
    """
    if wanted != "auto":
        return _DTYPES[wanted]
    if device.type == "cuda":
        # Without `including_emulation=False` torch says yes for a T4 (ml.g4dn), which has no such instructions.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


@dataclass(frozen=True)
class PhotoSource:
    """The photos of a fine-tuning task; pixels are uint8 [n, h, w, 3].

    Args:
        steps: Steps per epoch.
        batch: This rank's part of the batch of (epoch, step).
        batch_photos: Photos in the global batch of a step.
        replicated: Whether ranks share one batch, or each fills its own part.
        valid: This rank's validation photos, in batches; None where there are none.
        taught: A teacher's logits [n, classes] of the photos of `batch`; None without a teacher.
    """

    steps: int
    batch: Callable[[int, int], Batch]
    batch_photos: Callable[[int], int]
    replicated: bool = True
    valid: Callable[[], Iterator[Batch]] | None = None
    taught: Callable[[int, int], Tensor] | None = None


class FinetuneTask:
    """Fine-tunes a network; see `fitting.Task`.

    Args:
        recipe: The hyperparameters.
        network: The initial network; modified in place.
        transform: Gives mean and deviation; photos are normalized on the device, not by the decoders.
        source: The photos.
        class_weights: [classes], or None.
        world: The ranks that share each batch.
    """

    def __init__(
        self,
        recipe: FinetuneRecipe,
        network: Network,
        transform: Transform,
        source: PhotoSource,
        class_weights: Tensor | None,
        world: World,
    ) -> None:
        self._recipe, self._source, self._world = recipe, source, world
        device = world.device
        # The same seed gives the same weights on a GPU, too. Letting cuDNN try its algorithms gained nothing on an H100
        # (resnet50: 2,762 photos/s against 2,785; two blocks of mobilenet_v2: 8,108 against 12,401).
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
        blocks = unfreeze(network.backbone, recipe.blocks)
        self._trained_modules = [module for block in blocks for module in block.modules]
        self.network = network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = world.wrap(self.network)
        groups = decayed(network.head.parameters(), recipe.weight_decay, recipe.learning_rate)
        rate = recipe.learning_rate * recipe.backbone_rate
        for block in reversed(blocks):
            groups += decayed(block.parameters, recipe.weight_decay, rate)
            rate *= recipe.layer_decay
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        self._trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._start = {name: parameter.detach().cpu().clone() for name, parameter in self._trained.items()}
        self._average = Average(list(self._trained.values()), recipe.ema)
        self._loss = Loss(
            recipe.label_smoothing,
            None if class_weights is None else class_weights.to(device),
            recipe.distillation,
            recipe.teacher_temperature,
        )
        self._dtype = pick_precision(recipe.precision, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)
        self._scale, self._shift = (torch.from_numpy(part).to(device) for part in transform.scale_shift)
        self._train_mode()

    def schedule(self, stop_after: int | None = None) -> Schedule:
        """Return the schedule of the recipe; see `Schedule.stop_after`."""
        recipe = self._recipe
        return Schedule(recipe.epochs, self._source.steps, recipe.warmup, recipe.patience, stop_after)

    def train_step(self, epoch: int, step: int) -> Tally:
        """Take one optimizer step on this rank's part of the global batch, in `accumulate` pieces."""
        pixels, labels = self._source.batch(epoch, step)
        taught = self._loss.soft(self._source.taught(epoch, step)) if self._source.taught else None
        total = self._source.batch_photos(step)
        # Draw for the whole of a replicated batch and take a share, so that several ranks compute the same as one.
        mine = self._world.share(total) if self._source.replicated else slice(0, len(labels))
        rank = 0 if self._source.replicated else self._world.rank
        generator = np.random.default_rng([self._recipe.seed, epoch, step, 1, rank])
        shares, box = self._draw_mix(generator, total, pixels.shape[1])
        masks = tuple(mask[mine] for mask in self.network.head.draw_masks(generator, total))
        # Stochastic depth and dropout inside the trained blocks draw from torch's own generator.
        torch.manual_seed(int(generator.integers(2**62)) + self._world.rank)
        tally = Tally()
        pieces = _pieces(len(labels), self._recipe.accumulate)
        for number, piece in enumerate(pieces):
            with self._synchronized(number == len(pieces) - 1):
                losses = self._losses(
                    pixels[piece],
                    labels[piece],
                    None if taught is None else taught[piece],
                    shares[mine][piece],
                    box,
                    tuple(m[piece] for m in masks),
                )
                # DDP averages gradients over ranks: scale so that the result is the mean over the global
                # batch.
                loss = losses.sum() * (self._world.size / total)
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            tally.add(losses.detach().sum(), 0.0, len(losses))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._average.update()
        return tally

    def _draw_mix(
        self, generator: np.random.Generator, photos: int, side: int
    ) -> tuple[Tensor, tuple[int, int, int, int] | None]:
        """Draw each photo's share of its mixture, and the patch to swap if this step uses cutmix."""
        recipe = self._recipe
        takes_turns = recipe.mixup > 0 and recipe.cutmix > 0
        if recipe.cutmix > 0 and not (takes_turns and generator.random() < 0.5):
            box, share = cut(generator, side, recipe.cutmix)
            return torch.full((photos,), share), box
        return draw_shares(generator, photos, recipe.mixup), None

    def _losses(
        self,
        pixels: Tensor,
        labels: Tensor,
        taught: Tensor | None,
        shares: Tensor,
        box: tuple[int, int, int, int] | None,
        masks: tuple[Tensor, ...],
    ) -> Tensor:
        device = self._world.device
        photos = self._normalized(pixels)
        labels, shares = labels.to(device, non_blocking=True), shares.to(device, non_blocking=True)
        partner = partners(len(labels), device)
        if self._recipe.mixup > 0 or self._recipe.cutmix > 0:
            photos = mix(photos, partner, shares, box)
        with torch.autocast(device.type, self._dtype, enabled=self._dtype is not torch.float32):
            logits = self._model(photos, tuple(mask.to(device, non_blocking=True) for mask in masks))
        soft = None if taught is None else mixed(taught.to(device, non_blocking=True), shares)
        return self._loss(logits, labels, labels[partner], shares, soft)

    def _normalized(self, pixels: Tensor) -> Tensor:
        # Pixels arrive with channels last and stay so: permute only renames the axes.
        photos = pixels.to(self._world.device, non_blocking=True).permute(0, 3, 1, 2)
        return torch.addcmul(self._shift, photos.float(), self._scale)

    def _synchronized(self, last: bool) -> AbstractContextManager[None]:
        if last or not isinstance(self._model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self._model.no_sync()

    def _train_mode(self) -> None:
        """Set train mode in the trained blocks only, never for batch norm, whose statistics are kept."""
        self.network.eval()
        for module in self._trained_modules:
            module.train()
        for module in self.network.modules():
            if isinstance(module, _NORMS):
                module.eval()

    def validate(self) -> Tally | None:
        """This rank's validation photos, judged with the averaged weights."""
        if self._source.valid is None:
            return None
        tally = Tally()
        for logits, labels in self.judge(self._source.valid()):
            tally.add_logits(logits, labels)
        return tally

    @torch.no_grad()
    def judge(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of batches, on the device, with the averaged weights, in float32 as served."""
        with self._average.applied():
            self.network.eval()
            for pixels, labels in batches:
                yield self.network(self._normalized(pixels)), labels.to(self._world.device)
        self._train_mode()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the averaged weights of what is trained, on the CPU. All other weights are unchanged."""
        with self._average.applied():
            return {name: parameter.detach().cpu().clone() for name, parameter in self._trained.items()}

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put `weights` into the network."""
        for name, parameter in self._trained.items():
            parameter.copy_(weights[name])

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of a finished fit, which are averages already, and stop averaging."""
        self.load(weights)
        self._average = Average([], 0.0)
        self.network.eval()

    def move(self, weights: Mapping[str, Tensor], share: float) -> None:
        """Put the network between its start (0) and `weights` (1) (Wortsman et al. 2022, arXiv:2109.01903)."""
        self.settle({name: torch.lerp(start, weights[name], share) for name, start in self._start.items()})

    def state(self) -> dict[str, Any]:
        """Weights, average, optimizer and loss scale; everything else follows from the step number."""
        return {
            "trained": {name: parameter.detach().cpu() for name, parameter in self._trained.items()},
            "average": self._average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a `state`."""
        self.load(state["trained"])
        self._average.restore(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


def _pieces(count: int, wanted: int) -> list[slice]:
    """Cut a batch in at most `wanted` pieces that begin at even places, because neighbors are mixed."""
    pairs = (count + 1) // 2
    pieces = max(1, min(wanted, pairs))
    cuts = [2 * (pairs * number // pieces) for number in range(pieces)] + [count]
    return [slice(start, stop) for start, stop in pairwise(cuts)]
