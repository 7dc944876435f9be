"""Running a function once and following the axes of every tensor through it, operation by operation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsrl.errors import UserError
from wsrl.symmetry.inference.known_axes import Table, memory_of
from wsrl.symmetry.inference.reach import Step
from wsrl.symmetry.inference.reshape import view
from wsrl.symmetry.inference.terms import Axis, fixed_axes, size_of

Rule = Callable[["Call"], "list[Axis] | list[list[Axis] | None]"]
RULES: dict[str, Rule] = {}
"""By the name of an operation of ATen, without overload and without the underscore of those in place."""
BLANK = frozenset({"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"})
RESHAPES = frozenset({"transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims", "as_strided"})
"""Operations that in place change the axes of a tensor, not its entries."""
FACTORIES = BLANK | {form.format(kind) for kind in ("zeros", "ones", "full") for form in ("{}", "{}_like", "new_{}")}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operations; a text may name several, with spaces between them."""

    def register(function: Rule) -> Rule:
        for name in " ".join(names).split():
            assert name not in RULES, name
            RULES[name] = function
        return function

    return register


class UnfollowedError(Exception):
    """A rule met a use of its operation that it does not cover."""


FAILED = (UnfollowedError, AssertionError, ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError)
"""What a rule ends in that does not cover a use of its operation; the user learns which operation it was."""


class Call:
    """One operation, with its arguments by name.

    Attributes:
        name: Its name, as in ``RULES``.
        table: What is known so far.
        outputs: The tensors that it gave.
    """

    def __init__(self, function, args: tuple, kwargs: dict, table: Table, outputs: list[Tensor]):
        schema = function._schema
        self.name, self.table, self.outputs, self.schema = operation_name(function), table, outputs, schema
        names = [argument.name for argument in schema.arguments]
        defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        self.arguments = {**defaults, **dict(zip(names, args)), **kwargs}
        self.is_pointwise = torch.Tag.pointwise in function.tags

    def __getitem__(self, name: str):
        return self.arguments[name]

    def get(self, *names: str):
        """The first argument that is there under one of these names."""
        return next((self.arguments[name] for name in names if self.arguments.get(name) is not None), None)

    @property
    def tensors(self) -> list[Tensor]:
        """All arguments that are tensors, those in lists included."""
        return [leaf for leaf in tree_leaves(self.arguments) if isinstance(leaf, Tensor)]

    @property
    def out_shape(self) -> torch.Size:
        """Shape of the first output."""
        return self.outputs[0].shape

    def axes(self, *names: str) -> list[Axis]:
        """Axes of a tensor, the first argument that is there under one of these names."""
        return self.table.get(self.get(*names))

    def present(self, *names: str) -> list[list[Axis]]:
        """Axes of those arguments that are there and are tensors."""
        return [self.axes(name) for name in names if isinstance(self.arguments.get(name), Tensor)]

    def hold(self, *names: str) -> None:
        """Let nothing move along arguments, as far as they are there."""
        for name in names:
            if self.arguments.get(name) is not None:
                self.table.hold(self.arguments[name])

    def first(self, axes: list[Axis]) -> list[list[Axis] | None]:
        """Axes of the first output; of the others nothing is known, so they are fixed."""
        return [axes, *([None] * (len(self.outputs) - 1))]

    def dims(self, *names: str) -> list[int]:
        """An argument of one or several axes of ``self`` as sorted positive numbers; None and nothing mean all."""
        ndim, dims = self.arguments["self"].ndim, self.get(*names)
        dims = [dims] if isinstance(dims, int) else dims
        return sorted(d % ndim for d in dims) if dims else list(range(ndim))

    def written(self) -> list[Tensor]:
        """Arguments that the operation writes to."""
        arguments = [a for a in self.schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        return [leaf for a in arguments for leaf in tree_leaves(self.arguments[a.name]) if isinstance(leaf, Tensor)]


def operation_name(function) -> str:
    """Name of an operation without namespace, overload and the underscore of those in place."""
    name = function._schema.name.split("::")[-1]
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


class Tracer(TorchDispatchMode):
    """Follows axes through everything that runs while it is active.

    Attributes:
        table: What is known about tensors.
        modules: Paths of the modules that are running, outermost first.
        paused: Whether operations run without being followed.
        steps: The operations that were followed.
    """

    def __init__(self, table: Table):
        super().__init__()
        self.table, self.modules, self.paused = table, [], False
        self.steps: list[Step] = []
        self._count = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # wrapping for the compiler would import it, which takes seconds

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if self.paused:
            return result
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        call = Call(function, args, kwargs or {}, self.table, outputs)
        self._count += 1
        if call.name in FACTORIES or not any(self.table.known(tensor) for tensor in call.tensors):
            self._number(call)
        else:
            self._follow(call)
        return result

    def _number(self, call: Call) -> None:
        """Note the constants that an operation made, by numbers that are the same in every run."""
        for i, output in enumerate(call.outputs):
            if call.name in BLANK:
                self.table.blank(output)
            if memory_of(output) not in [memory_of(tensor) for tensor in call.tensors]:
                self.table.number(output, self._count * 16 + i)

    def _follow(self, call: Call) -> None:
        """Enter the outputs of an operation on tensors of which some are known."""
        # a constant that it writes to was one tensor all along, which the trace starts over with
        written = call.written()
        for tensor in written:
            if not self.table.known(tensor):
                self.table.refuse_write(tensor)
        # what was written to moves as before and as the result does; all else has the axes that the rule gave
        for output, axes in zip(call.outputs, self._axes_of(call)):
            axes = fixed_axes(output.shape) if axes is None else axes
            if any(output is tensor for tensor in written) and call.name not in RESHAPES:
                self.table.tie(output, axes)
            else:
                self.table.record(output, axes)
        self.steps.append(Step(call.name, call.tensors, call.outputs, bool(written)))

    def _axes_of(self, call: Call) -> list[list[Axis] | None]:
        """Axes of each output by the rule of the operation; None, where nothing that it takes may move."""
        follow = RULES.get(call.name) or (RULES["pointwise"] if call.is_pointwise else None)
        failure = None
        if follow is not None:
            try:
                axes = follow(call)
                several = len(call.outputs) != 1 or (axes and (axes[0] is None or isinstance(axes[0], list)))
                return _checked(call, axes if several else [axes])
            except FAILED as error:
                failure = error
        if self.table.moves(call.tensors):
            raise self._unknown(call, failure) from failure
        return [None] * len(call.outputs)

    def _unknown(self, call: Call, failure: Exception | None) -> UserError:
        path = self.modules[-1] if self.modules else ""
        location = f"in the module {path!r}" if path else "in the network itself, outside of its submodules"
        use = "" if failure is None else f" as it is used there ({failure or type(failure).__name__})"
        return UserError(
            f"there is no rule for the operation {call.name} ({location}) on axes that may move{use}",
            allowed=f"operations with a rule: {', '.join(sorted(RULES))}, and pointwise ones",
            do=f'describe that part by hand, as in described={{"{path or "path.to.module"}": ModuleAxes('
            'tensors={"weight": ("c", None)}, inputs=((None, "c"),), outputs=((None, "c"),))}, '
            "move the operation into a module of its own and describe that, or hold its weights with fixed=(...)",
        )


def _checked(call: Call, results: list[list[Axis] | None]) -> list[list[Axis] | None]:
    """What a rule found, once its axes are as long as those of the outputs; an axis of no elements has no atoms."""
    for output, axes in zip(call.outputs, results, strict=True):
        sizes = axes if axes is None else [size_of(axis) for axis in axes]
        if sizes is not None and sizes != [size or 1 for size in output.shape]:
            raise UnfollowedError(f"axes of {sizes} elements were found for a tensor of shape {tuple(output.shape)}")
    return results


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Run composite operations as what they are made of, not as fused kernels."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(onednn)


def regrouped(axis: Axis, sizes: list[int]) -> list[Axis]:
    """One axis as groups and what is inside a group."""
    return view([axis], [size_of(axis)], sizes, ("groups", "channels"))
