"""Features of a network's weights with their means, each computed once, from the smallest mean that contains it.

Letters: B networks, C channels.
"""

from torch import Tensor

from wsrl.unf.basis import Pattern


class PooledTensor:
    """Features ``(B, *axes, C)`` of one tensor, and the means over some of its axes that were asked for.

    Args:
        values: The features, before their scale.
        means: Means that are known already, by the axes that are left; each has these alone, in their order.
        square: Mean square of each channel ``(B, C)``, where it is known.
        scale: Factors ``(B, C)`` on the features; kept apart, so that a matrix after them can take them up.
    """

    def __init__(
        self,
        values: Tensor,
        means: dict[frozenset[int], Tensor] | None = None,
        square: Tensor | None = None,
        scale: Tensor | None = None,
    ):
        self.num_axes = values.ndim - 2
        self._whole = frozenset(range(self.num_axes))
        self._means = {self._whole: values, **(means or {})}
        self._square, self._scale = square, scale
        self._diagonals: dict[Pattern, Tensor] = {}

    @property
    def values(self) -> Tensor:
        """The features ``(B, *axes, C)``."""
        return self._scaled(self._means[self._whole])

    def square(self) -> Tensor:
        """Mean square of each channel, ``(B, C)``, before the scale."""
        if self._square is None:
            values = self._means[self._whole]
            self._square = values.square().flatten(1, -2).mean(1) if self.num_axes else values.square()
        return self._square

    def scaled(self, scale: Tensor) -> "PooledTensor":
        """The same features times ``(B, C)``."""
        return PooledTensor(
            self._means[self._whole],
            self._means,
            self._square,
            scale if self._scale is None else self._scale * scale,
        )

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(B, *axes, C)`` and a matrix ``(C, D)`` or ``(B, C, D)`` whose product is ``values @ weight``."""
        values = self._means[self._whole]
        return values, weight if self._scale is None else self._scale.unsqueeze(-1) * weight

    def _scaled(self, values: Tensor) -> Tensor:
        if self._scale is None:
            return values
        return values * self._scale.reshape(len(self._scale), *(1,) * (values.ndim - 2), -1)

    def mean(self, kept: frozenset[int]) -> Tensor:
        """Mean over all axes but some, which stay in their order."""
        if kept not in self._means:
            wider = min((axes for axes in self._means if axes > kept), key=lambda axes: self._means[axes].numel())
            lost = [index + 1 for index, axis in enumerate(sorted(wider)) if axis not in kept]
            self._means[kept] = self._means[wider].mean(dim=lost)
        return self._scaled(self._means[kept])

    def pool(self, pattern: Pattern) -> Tensor:
        """What ``Pattern.pool`` gives of the features, ``(B, *kept, C)``."""
        if not pattern.is_simple:
            if pattern not in self._diagonals:
                self._diagonals[pattern] = pattern.pool(self.values)
            return self._diagonals[pattern]
        return pattern.from_order(self.mean(pattern.kept_set))
