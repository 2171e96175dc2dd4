"""What the model is asked to get right: labels, velocity and openness, where they are known.

A label that a source does not annotate is *unknown* there, not absent: it takes no part in the
loss. The same holds for a velocity or an openness that is not known (NaN).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["DrumLoss", "masked_bce", "masked_cross_entropy", "masked_smooth_l1"]


def masked_bce(
    logits: Tensor,
    labels: Tensor,
    annotated: Tensor,
    *,
    label_smoothing: float = 0.0,
    pos_weight: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Mean binary cross-entropy over the annotated cells; 0 when none is annotated.

    Args:
        logits: [shape=(batch, n_classes)].
        labels: targets in 0..1 [shape=(batch, n_classes)].
        annotated: 1 where the label is annotated, 0 where it is unknown [same shape].
        label_smoothing: s moves a target t to ``t * (1 - s) + s / 2``.
        pos_weight: weight of the positive term a class [shape=(n_classes,)].
        count: what the sum is divided by, in place of the annotated cells of these clips: those of
            the whole step, when these clips are a part of it.
    """
    targets = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    cells = nn.functional.binary_cross_entropy_with_logits(
        logits, targets, pos_weight=pos_weight, reduction="none"
    )
    return (cells * annotated).sum() / _divisor(annotated.sum() if count is None else count)


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    annotated: Tensor,
    *,
    label_smoothing: float = 0.0,
    count: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the clips with exactly one label; 0 when there are none.

    Unannotated classes are left out of the softmax. A mean of two single labels (mixup) counts as
    one. Shapes and `count` as in `masked_bce`.
    """
    single = _single(labels)
    known = annotated.bool()
    log_p = nn.functional.log_softmax(logits.masked_fill(~known, -torch.inf), dim=1)
    log_p = log_p.masked_fill(~known, 0.0)
    share = annotated / annotated.sum(dim=1, keepdim=True).clamp_min(1.0)
    targets = labels * (1.0 - label_smoothing) + share * label_smoothing
    return (-(targets * log_p).sum(dim=1) * single).sum() / _divisor(
        single.sum() if count is None else count
    )


def masked_smooth_l1(
    predicted: Tensor, target: Tensor, *, beta: float = 0.1, count: Tensor | None = None
) -> Tensor:
    """Mean smooth L1 over the targets that are known (not NaN); 0 when none is.

    Quadratic below an error of `beta`, linear above. Both have shape (batch,). `count` as in
    `masked_bce`.
    """
    known = ~torch.isnan(target)
    errors = nn.functional.smooth_l1_loss(
        predicted, torch.where(known, target, predicted.detach()), reduction="none", beta=beta
    )
    return errors.sum() / _divisor(known.sum() if count is None else count)


def _divisor(count: Tensor) -> Tensor:
    return count.clamp_min(1)


def _single(labels: Tensor) -> Tensor:
    """Return 1 for each clip whose labels sum to one, rounding aside [shape=(batch,)]."""
    return ((labels.sum(dim=1) - 1.0).abs() < 1e-4).float()


class DrumLoss(nn.Module):
    """The weighted sum of the class, velocity and openness losses.

    Takes the model's outputs and the targets ``labels``, ``annotated``, ``velocity`` and
    ``openness`` (NaN = unknown); returns ``{"total", "classes", "velocity", "openness"}``, the
    parts unweighted and only for the heads that are there.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        *,
        task: str = "multilabel",
        label_smoothing: float = 0.05,
        velocity_weight: float = 0.5,
        openness_weight: float = 0.5,
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        if task not in ("multilabel", "multiclass"):
            raise ValueError(f"task must be multilabel or multiclass, got {task!r}")
        self.task = task
        self.label_smoothing = label_smoothing
        self.weights = {"velocity": velocity_weight, "openness": openness_weight}
        self.register_buffer("pos_weight", pos_weight)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each loss is divided by, as scalars: known cells, or clips.

        Sums of them over the parts of a step, handed to `forward`, make the losses of the parts
        add up to the loss of the whole.
        """
        if self.task == "multiclass":
            classes = _single(targets["labels"]).sum()
        else:
            classes = targets["annotated"].sum()
        known = {head: (~torch.isnan(targets[head])).sum() for head in self.weights}
        return {"classes": classes, **known}

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        counts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of a batch, each a scalar.

        `counts` are those of the whole step of which the batch is a part; None: the batch's own.
        """
        logits, labels, annotated = outputs["logits"], targets["labels"], targets["annotated"]
        count = counts or {}
        if self.task == "multiclass":
            classes = masked_cross_entropy(
                logits,
                labels,
                annotated,
                label_smoothing=self.label_smoothing,
                count=count.get("classes"),
            )
        else:
            classes = masked_bce(
                logits,
                labels,
                annotated,
                label_smoothing=self.label_smoothing,
                pos_weight=self.pos_weight,
                count=count.get("classes"),
            )
        losses = {"total": classes, "classes": classes}
        for head, weight in self.weights.items():
            if head in outputs:
                losses[head] = masked_smooth_l1(outputs[head], targets[head], count=count.get(head))
                losses["total"] = losses["total"] + weight * losses[head]
        return losses
