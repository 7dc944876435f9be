"""The layer of an mLoRA adapter: a linear map or a convolution whose frozen weight is scaled by low-rank factors.

Letters: A ``(rank, in)`` and B ``(out, rank)`` are the factors of one adapter; a convolution's weight counts as
``(out, in)`` with ``in`` the product of its other axes.
"""

import hashlib
import math
import warnings

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from wsrl.adapters.masks import asymmetric_mask
from wsrl.adapters.mlora.config import MLoraConfig
from wsrl.adapters.scaling import scale_weight, start_factors
from wsrl.errors import UserError

SUPPORTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def module_mask(config: MLoraConfig, rank: int, num_in: int, module_name: str) -> Tensor:
    """The mask ``(rank, in)`` that ``config`` gives to the module of this name; true where trainable."""
    digest = hashlib.sha256(f"{config.mask_seed}/{module_name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return asymmetric_mask(rank, num_in, config.mask_fraction, generator)


def check_layer(layer: nn.Module, name: str) -> None:
    """Refuse a layer whose weight cannot be scaled.

    Args:
        layer: The layer that is asked for.
        name: Its name in the model.

    Raises:
        UserError: It is of another kind, computes its weight anew from others, or stores it in another form.
    """
    # the kind of layer
    allowed = ", ".join(kind.__name__ for kind in SUPPORTED)
    if isinstance(layer, BaseTunerLayer):
        raise UserError(
            f"mLoRA cannot adapt {name}, which another method of PEFT adapts already ({type(layer).__module__})",
            allowed="layers of a model without adapters, or with adapters of mLoRA",
            do="call merge_and_unload() of that model first",
        )
    if not isinstance(layer, SUPPORTED):
        raise UserError(
            f"mLoRA cannot adapt {name}, a {type(layer).__name__}",
            allowed=allowed,
            do="name such layers in target_modules",
        )
    # a weight of its own
    weight = layer._parameters.get("weight")
    if weight is None:  # a hook or a parametrisation writes it before each pass, over any scaled weight
        kinds = ", ".join(sorted(key for key in layer._parameters if key.startswith("weight")))
        if is_parametrized(layer, "weight"):
            kinds = ", ".join(type(part).__name__ for part in layer.parametrizations["weight"])
        raise UserError(
            f"mLoRA cannot adapt {name}: its weight is computed anew in each pass ({kinds or 'no parameter'})",
            allowed=f"{allowed} with a weight of their own",
            do="remove that first: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), "
            "remove_weight_norm(layer), remove_spectral_norm(layer) or prune.remove(layer, 'weight')",
        )
    # stored as numbers that can be scaled
    is_plain = type(weight) is nn.Parameter and weight.dtype.itemsize > 1
    if not (is_plain and (weight.is_floating_point() or weight.is_complex())):
        kind = f"{type(weight).__name__}, {str(weight.dtype).removeprefix('torch.')}"
        is_lazy = isinstance(weight, nn.parameter.UninitializedParameter)
        raise UserError(
            f"mLoRA cannot adapt {name}: its weight is {'not initialised' if is_lazy else 'quantised'} ({kind})",
            allowed=f"{allowed} with a weight in float16 or wider",
            do="pass a batch through the model first" if is_lazy else "load the model without quantisation",
        )


class MLoraLayer(nn.Module, BaseTunerLayer):
    """Wraps one layer; holds the factors and the mask of each adapter.

    Several active adapters act one after the other in the order in which they were activated: each scales the weight
    that the one before it left. All forms scale entrywise, so the order matters only to rounding.

    Args:
        base_layer: The layer to adapt.
        adapter_name: Name of the first adapter.
        config: Configuration of the first adapter.
        rank: Rank of the first adapter in this layer.
        module_name: Name of the layer in its model; the mask depends on it.
    """

    adapter_layer_names: tuple[str, ...] = ("mlora_A", "mlora_B")
    other_param_names: tuple[str, ...] = ("r", "form", "mlora_mask")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: MLoraConfig, rank: int, module_name: str):
        super().__init__()
        check_layer(base_layer, module_name)
        self.base_layer = base_layer
        self.num_out = base_layer.weight.shape[0]
        self.num_in = math.prod(base_layer.weight.shape[1:])
        self.r: dict[str, int] = {}
        self.form: dict[str, str] = {}
        self.mlora_A = nn.ParameterDict()
        self.mlora_B = nn.ParameterDict()
        self.mlora_mask = BufferDict(persistent=True)
        self._disable_adapters = False
        self._own_weight: tuple[nn.Parameter, ...] = ()  # while merged; in a tuple, so that it is not a parameter here
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, rank, module_name)

    def update_layer(self, adapter_name: str, config: MLoraConfig, rank: int, module_name: str) -> None:
        """Add an adapter, or start it again."""
        mask = module_mask(config, rank, self.num_in, module_name) if config.mask_fraction > 0 else None
        down, up = start_factors(self.num_in, self.num_out, rank, config.form, mask, config.start_std, None)
        if not config.init_weights:
            up = up + config.start_std * torch.randn_like(up)
        self.r[adapter_name] = rank
        self.form[adapter_name] = config.form
        self.mlora_A[adapter_name] = nn.Parameter(down)
        self.mlora_B[adapter_name] = nn.Parameter(up)
        if adapter_name in self.mlora_mask:
            del self.mlora_mask[adapter_name]
        if mask is not None:
            self.mlora_mask[adapter_name] = mask
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def scaled_weight(self, weight: Tensor, adapter_names: list[str]) -> Tensor:
        """Scale ``weight`` by these adapters in order; in its dtype, computed in the wider one of weight and factors.

        Masked entries of ``A`` are multiplied by zero here, so they get no gradient and no influence.
        """
        scaled = weight.flatten(1)
        for name in adapter_names:
            down = self.mlora_A[name]
            if name in self.mlora_mask:
                down = down * self.mlora_mask[name].to(down.device)
            scaled = scale_weight(scaled, down, self.mlora_B[name], self.form[name])
        return scaled.reshape(weight.shape).to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The wrapped layer, evaluated with the scaled weight."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = [name for name in self.active_adapters if name in self.mlora_A]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x)
        return functional_call(self.base_layer, {"weight": self.scaled_weight(self.base_layer.weight, names)}, (x,))

    @property
    def _weight_before_merge(self) -> Tensor | None:
        return self._own_weight[0] if self._own_weight else None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Give the wrapped layer the scaled weight, keeping its own for :meth:`unmerge`.

        The weight is replaced and not written to: another layer that shares it stays as it is.

        Args:
            safe_merge: Refuse to merge a weight that is not finite.
            adapter_names: Adapters to merge in this order; None for the active ones.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.mlora_A]
        if not names:
            return
        weight = self.base_layer.weight
        with torch.no_grad():
            merged = self.scaled_weight(weight, names)
            if safe_merge and not torch.isfinite(merged).all():
                raise UserError(
                    f"The adapters {', '.join(names)} give weights that are not finite", do="do not merge them"
                )
            if not self._own_weight:
                self._own_weight = (weight,)
            self.base_layer.weight = nn.Parameter(merged, requires_grad=weight.requires_grad)
        self.merged_adapters.extend(names)

    def unmerge(self) -> None:
        """Restore the weight from before the first merge, bit for bit (a scale of zero could not be divided out)."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        (own,), merged = self._own_weight, self.base_layer.weight
        if (own.device, own.dtype) != (merged.device, merged.dtype):  # the model was moved meanwhile
            own = nn.Parameter(own.detach().to(merged), requires_grad=own.requires_grad)
        self.base_layer.weight = own
        self._own_weight = ()
        self.merged_adapters.clear()

    def extra_repr(self) -> str:
        """The rank, form and mask of each adapter."""
        return ", ".join(
            f"{name}: r={self.r[name]} {self.form[name]}{' masked' if name in self.mlora_mask else ''}"
            for name in self.r
        )
