"""The configuration of an mLoRA adapter."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig

from wsrl.adapters.mlora.peft_type import MLORA
from wsrl.adapters.scaling import FORM, INIT_STD
from wsrl.errors import UserError
from wsrl.options import SHARE, at_least, check_values, every, one_of


@dataclass
class MLoraConfig(PeftConfig):
    """Configuration of :class:`MLoraModel`.

    Attributes:
        r: Rank of the factors.
        target_modules: Names (or endings of names) of the modules to adapt, or one regular expression, or
            ``all-linear``. They must be ``nn.Linear``, ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.
        exclude_modules: Names or regular expression of modules that stay as they are.
        form: How the factors scale the weight: ``exp``, ``one_plus`` or ``product``.
        mask_fraction: Share of the entries of every ``A`` that is frozen at zero, in [0, 1); 0 for no mask.
        mask_seed: Seed of the mask, which also depends on the module's name. The mask itself is saved with the adapter.
        init_std: Standard deviation of the start of ``A``; None for the one measured to fit the form.
        init_weights: Start at the base model. False starts both factors at random, for tests.
        bias: Which biases are trained: ``none``, ``all`` or ``mlora_only``.
        modules_to_save: Other modules to train and save with the adapter.
        rank_pattern: Ranks of single modules, by name or regular expression.
        layers_to_transform: Indices of the layers to adapt.
        layers_pattern: Name of the list that the indices refer to.
    """

    r: int = field(default=4, metadata={"help": "Rank of the factors."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave alone."})
    form: str = field(default="exp", metadata={"help": "exp, one_plus or product."})
    mask_fraction: float = field(default=0.0, metadata={"help": "Share of the entries of A frozen at zero."})
    mask_seed: int = field(default=0, metadata={"help": "Seed of the mask."})
    init_std: float | None = field(default=None, metadata={"help": "Standard deviation of the start of A."})
    init_weights: bool = field(default=True, metadata={"help": "Start at the base model."})
    bias: str = field(default="none", metadata={"help": "none, all or mlora_only."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Other modules to train and save."})
    rank_pattern: dict = field(default_factory=dict, metadata={"help": "Ranks of single modules."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Layers to adapt."})
    layers_pattern: list[str] | str | None = field(default=None, metadata={"help": "Name of the list of layers."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = MLORA
        self.target_modules = set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        values = vars(self) | {"rank_pattern": list(self.rank_pattern.values())}
        ranks = {"r": at_least(1), "rank_pattern": every(at_least(1))}
        bias = one_of("none", "all", "mlora_only")
        check_values(values, **ranks, form=FORM, mask_fraction=SHARE, bias=bias)
        if isinstance(self.target_modules, str) and (self.layers_to_transform or self.layers_pattern):
            raise UserError(
                "layers_to_transform and layers_pattern with a regular expression as target_modules",
                do="list the names of the modules, or put the indices into the expression",
            )

    @property
    def start_std(self) -> float:
        """Standard deviation of the start of ``A`` that is in force."""
        return INIT_STD[self.form] if self.init_std is None else self.init_std
