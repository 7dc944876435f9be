"""Losses of many fields and their gradients: by autograd on any device, or by the kernel for CPUs.

Both give each field the gradient of its own mean loss; nothing is summed over the fields, so one that diverges
leaves the others alone. They agree to rounding. The fields' numbers stand in one matrix, in the order of the layout.

Letters: B fields, W numbers of a field, P points, F features of the encoding, C channels.
"""

import contextlib
import ctypes
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from wsrl.adapters.scaling import FORMS
from wsrl.errors import UserError
from wsrl.fields.network import ACTIVATIONS
from wsrl.fields.representation import LayerParts, Representation
from wsrl.fitting import native
from wsrl.fitting.loss import LOSSES, SQUARED, PointLoss

METHODS = ("auto", "kernel", "autograd")
PRECISIONS = ("float32", "tf32", "bfloat16")
ALIGNMENT = 16


class AutogradGradient:
    """Losses and gradients by torch, on any device.

    Args:
        representation: What the numbers are.
        precision: Of the matrix products: ``float32``, ``tf32`` (on GPUs that have it) or ``bfloat16``; the numbers
            themselves and their gradients are float32.
        loss: Of a value.
    """

    def __init__(self, representation: Representation, precision: str = "float32", loss: PointLoss = SQUARED):
        self.representation, self.precision, self.loss = representation, precision, loss

    def prepare(self, features: Tensor) -> Tensor:
        """Encoded points ``(F, P)`` for all fields or ``(B, F, P)`` in the form that the other methods take."""
        return features

    def values(self, numbers: Tensor, points: Tensor) -> Tensor:
        """Values ``(B, P, C)`` at prepared points of the fields with these numbers ``(B, W)``."""
        tensors = self.representation.layout.unflatten(numbers)
        with torch.no_grad(), self._products(numbers.device):
            return self.representation.evaluate_encoded(tensors, points).mT.float()

    def __call__(
        self,
        numbers: Tensor,
        points: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Losses ``(B,)`` and their gradients ``(B, W)``.

        Args:
            numbers: Of the fields ``(B, W)``.
            points: What :meth:`prepare` made of their points.
            targets: Values ``(B, P, C)``.
            weights: Factors ``(B, P')`` on the losses of the points, or None; a mean divides by the number of values.
            drawn: Places ``(B, P')`` in int32 of the points that each field sees; None for all P of them.
        """
        if drawn is not None:
            own = drawn.long()  # (B, P')
            points = points[:, own].movedim(0, 1) if points.ndim == 2 else _taken(points.mT, own).mT  # (B, F, P')
            targets = _taken(targets, own)  # (B, P', C)
        tensors = self.representation.layout.unflatten(numbers.detach())
        tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        with torch.enable_grad(), self._products(numbers.device):
            found = self.representation.evaluate_encoded(tensors, points)
            values, wanted = found.detach().float(), targets.mT
            slopes = self.loss.slope(values, wanted) * (1 / values[0].numel())
            losses = self.loss(values, wanted)
            if weights is not None:
                slopes, losses = slopes * weights.unsqueeze(1), losses * weights.unsqueeze(1)
            gradients = torch.autograd.grad(found, list(tensors.values()), slopes.to(found.dtype))
        return losses.mean((1, 2)), torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)

    def _products(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self.precision == "bfloat16":
            return torch.autocast(device.type, torch.bfloat16)
        return _tf32() if self.precision == "tf32" else contextlib.nullcontext()


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """Rows ``(B, P', C)`` of ``(B, P, C)`` at the places ``(B, P')`` of each field."""
    return rows.gather(1, places.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


@contextlib.contextmanager
def _tf32():
    """Matrix products of float32 in TF32 where the GPU has it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class KernelGradient:
    """The same by the C++ kernel: float32 on a CPU, a field per thread, activations in the core's cache.

    The result of a field does not depend, in any bit, on the other fields, their number or the number of threads.

    Args:
        representation: What the numbers are.
        loss: Of a value.
    """

    def __init__(self, representation: Representation, loss: PointLoss = SQUARED):
        library, reason = native.load()
        assert library is not None, reason
        self._library, self._rank = library, representation.config.rank
        ends = itertools.accumulate(spec.size for spec in representation.layout)
        self._offsets = {spec.name: end - spec.size for spec, end in zip(representation.layout, ends)}
        self._parts = [_contiguous(part) for part in representation.parts()]
        config = representation.field_config
        shapes = config.layer_shapes(representation.in_features, representation.out_features)
        sizes = [shapes[0][1], *(fan_out for fan_out, _ in shapes)]
        self._sizes = (ctypes.c_int64 * len(sizes))(*sizes)  # must live as long as the network that points to it
        activation = ACTIVATIONS.index(config.activation)
        place = ctypes.addressof(self._sizes)
        of_value = (LOSSES.index(loss.kind), loss.low, loss.high)
        self._network = native.NetworkStruct(len(shapes), activation, config.residual, config.omega, place, *of_value)

    def prepare(self, features: Tensor) -> Tensor:
        """As :meth:`AutogradGradient.prepare`: ``(P, F)`` or ``(B, P, F)``, rows padded with zeros."""
        size = features.shape[-2]
        padded = -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        return F.pad(features.mT, (0, padded - size)).contiguous()

    def values(self, numbers: Tensor, points: Tensor) -> Tensor:
        """As :meth:`AutogradGradient.values`."""
        found = torch.empty(len(numbers), points.shape[-2], self._sizes[-1])
        self._run(numbers.contiguous(), points, None, num_points=points.shape[-2], values=found.data_ptr())
        return found

    def __call__(
        self,
        numbers: Tensor,
        points: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`AutogradGradient.__call__`."""
        numbers, targets = numbers.contiguous(), targets.contiguous()
        assert targets.shape[1:] == (points.shape[-2], self._sizes[-1]) and targets.dtype == torch.float32
        num_points = points.shape[-2]
        losses, gradients = torch.empty(len(numbers)), torch.empty_like(numbers)
        pointers = {"targets": targets.data_ptr(), "target_step": targets[0].numel(), "losses": losses.data_ptr()}
        if weights is not None:
            weights = weights.contiguous()
            pointers |= {"weights": weights.data_ptr(), "weight_step": weights.shape[1]}
        if drawn is not None:
            drawn, num_points = drawn.contiguous(), drawn.shape[1]
            assert drawn.dtype == torch.int32
            pointers |= {"drawn": drawn.data_ptr(), "drawn_step": num_points}
        self._run(numbers, points, gradients, num_points=num_points, **pointers)
        return losses, gradients

    def _run(self, numbers: Tensor, points: Tensor, gradients: Tensor | None, **pointers: int) -> None:
        assert numbers.dtype == points.dtype == torch.float32 and points.stride(-1) == 1
        layers = (native.Layer * len(self._parts))(*(self._layer(part, numbers, gradients) for part in self._parts))
        batch = native.BatchStruct(
            num_fields=len(numbers),
            feature_stride=points.shape[-1],
            feature_step=points.stride(0) if points.ndim == 3 else 0,
            features=points.data_ptr(),
            **pointers,
        )
        structures = (ctypes.addressof(structure) for structure in (self._network, layers, batch))
        if self._library.wsrl_gradients(*structures, torch.get_num_threads()):
            raise MemoryError("the fitting kernel found no memory for its activations")

    def _layer(self, part: LayerParts, numbers: Tensor, gradients: Tensor | None) -> native.Layer:
        sources = (part.weight, part.bias, *([] if part.down is None else [part.down, part.up]))
        tensors = [self._tensor(source, numbers, gradients) for source in sources]
        if part.down is None:
            return native.Layer(*tensors)
        return native.Layer(*tensors, self._rank, (*FORMS, "add").index(part.form))

    def _tensor(self, source: Tensor | str, numbers: Tensor, gradients: Tensor | None) -> native.Tensor:
        if not isinstance(source, str):
            return native.Tensor(source.data_ptr(), None, 0)
        offset = self._offsets[source] * numbers.element_size()
        gradient = None if gradients is None else gradients.data_ptr() + offset
        return native.Tensor(numbers.data_ptr() + offset, gradient, numbers.shape[1])


def _contiguous(part: LayerParts) -> LayerParts:
    """The parts with the shared tensors laid out as the kernel reads them."""
    tensors = {name: getattr(part, name) for name in ("weight", "bias")}
    tensors = {name: t if isinstance(t, str) else t.detach().float().contiguous() for name, t in tensors.items()}
    return LayerParts(**tensors, down=part.down, up=part.up, form=part.form)


def choose_method(method: str, device: torch.device | str, precision: str = "float32") -> str:
    """``kernel`` or ``autograd``, whichever ``method`` comes to.

    Args:
        method: One of ``METHODS``; ``auto`` takes the kernel for float32 on a CPU that can compile it.
        device: Where the fields are fitted.
        precision: One of ``PRECISIONS``.

    Raises:
        UserError: The kernel was asked for where it cannot run.
    """
    if method == "autograd":
        return method
    reason = f"the device is {device} and the precision {precision}; the kernel is for float32 on CPUs"
    if torch.device(device).type == "cpu" and precision == "float32":
        reason = native.load()[1]
    if not reason:
        return "kernel"
    if method == "kernel":
        raise UserError(f"the fitting kernel cannot be used: {reason}", allowed="auto or autograd", do="choose auto")
    return "autograd"


def make_gradient(
    representation: Representation,
    device: torch.device | str,
    method: str = "auto",
    precision: str = "float32",
    loss: PointLoss = SQUARED,
) -> AutogradGradient | KernelGradient:
    """The chosen way to compute gradients.

    Args:
        representation: What the numbers are.
        device: Where the fields are fitted.
        method: One of ``METHODS``.
        precision: One of ``PRECISIONS``.
        loss: Of a value.
    """
    if type(representation).evaluate_encoded is not Representation.evaluate_encoded:
        method = "autograd"  # conventions of its own, which the kernel does not know
    chosen = choose_method(method, device, precision)
    if chosen == "kernel":
        return KernelGradient(representation, loss)
    return AutogradGradient(representation, precision, loss)
