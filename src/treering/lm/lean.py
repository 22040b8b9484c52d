"""A model that keeps less for the way back, and moves less memory, while it is trained on a CPU. The same function.

What is cheap to make again is not kept: what a norm, an activation function or a gate's product gave is made from its
inputs when it is asked for (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", of such operations
alone). An adapter is added to what its layer gives in place, without the three arrays of that size in between. And on
every device, in mixed precision: what an adapter reads, if that is of half precision, is kept once (:func:`uncast`).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional

from treering.lm.base import layers_of
from treering.lm.hardware import give_back

Made = Callable[..., torch.Tensor]

ACTIVATIONS = ("torch.nn.modules.activation", "transformers.activations")
KEEPS_NOTHING_MORE = ("ReLU",)
"""Activation functions that keep what they give, as the next layer does: nothing is saved there."""
GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What a gated layer's parts are called, in Llama and in all that were built like it."""


def computed_in(tensor: torch.Tensor) -> torch.dtype:
    """What products with it are computed in."""
    kind: Any = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class Lean:
    """Who remembers how a tensor was made, from when it is made until all that keep it have been told."""

    def __init__(self, *, remembers: bool) -> None:
        self.remembers = remembers
        self._made: dict[int, _Recipe] = {}

    @contextmanager
    def forward(self) -> Iterator[None]:
        """What is kept in here for the way back is kept as its inputs where those are known."""
        if not self.remembers:
            yield
            return
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                yield
        finally:
            self._made.clear()

    def made(self, function: Made, parameters: tuple[torch.Tensor, ...], *inputs: torch.Tensor) -> torch.Tensor:
        """``function`` of the inputs, which alone are kept. ``parameters`` are what else it reads."""
        if not torch.is_grad_enabled():
            return function(*inputs)
        recipe = _Recipe(function, inputs)
        result: torch.Tensor = _Remade.apply(recipe, *inputs, *parameters)  # type: ignore[no-untyped-call]
        if self.remembers:
            self._made[recipe.gave(result)] = recipe
        return result

    def _pack(self, tensor: torch.Tensor) -> Any:
        recipe = self._made.get(tensor.untyped_storage()._cdata)
        if recipe and recipe.gives(tensor):
            return recipe, tensor.shape
        return tensor.detach()  # not itself: what an operation gave would hold that operation, and it the tensor

    def _unpack(self, packed: Any) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        recipe, shape = packed
        again: torch.Tensor = recipe.made()[1]
        return again.detach().view(shape)


class _Recipe:
    """How a tensor was made. It is made again once, for those that keep it and then for its own way back."""

    def __init__(self, function: Made, inputs: tuple[torch.Tensor, ...]) -> None:
        self.function = function
        self.inputs = [one.detach().requires_grad_(one.requires_grad) for one in inputs]
        self.cast = _Cast(inputs[0])
        self._again: torch.Tensor | None = None

    def gave(self, result: torch.Tensor) -> int:
        """The number of the storage it is in: while this recipe is there, no other storage gets it."""
        from torch.multiprocessing.reductions import StorageWeakRef

        storage = result.untyped_storage()
        self._storage = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self._like = result.numel(), result.dtype, result._version
        return int(storage._cdata)

    def gives(self, tensor: torch.Tensor) -> bool:
        return tensor.is_contiguous() and self._like == (tensor.numel(), tensor.dtype, tensor._version)

    def made(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        if self._again is None:
            with torch.enable_grad(), self.cast.again():
                self._again = self.function(*self.inputs)
        return self.inputs, self._again

    def done(self) -> None:
        self.inputs, self._again = [], None


class _Cast:
    """What autocast was, to be the same on the way back."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.device: Any = tensor.device.type
        self.enabled, self.dtype = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)

    def again(self) -> Any:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.enabled)


class _Remade(torch.autograd.Function):
    """What a recipe gives; its inputs alone are kept."""

    @staticmethod
    def forward(ctx: Any, recipe: _Recipe, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.recipe, ctx.parameters = recipe, tensors[len(recipe.inputs) :]
        return recipe.function(*recipe.inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inputs, again = ctx.recipe.made()
        read = [*inputs, *ctx.parameters]
        needed = ctx.needs_input_grad[1:]
        wanted = [one for one, asked in zip(read, needed, strict=True) if asked]
        found = iter(torch.autograd.grad(again, wanted, grads[0]))
        ctx.recipe.done()
        return None, *(next(found) if asked else None for asked in needed)


class _Adapted(torch.autograd.Function):
    """A linear layer with an adapter of low rank: x W' + b + scale x A' B', of which x and x A' are kept."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> torch.Tensor:
        dtype = computed_in(x)
        ctx.scale, ctx.dtype = scale, dtype
        rows = x.flatten(0, -2).to(dtype)
        inner = rows @ down.to(dtype).T
        result = functional.linear(rows, weight.to(dtype), None if bias is None else bias.to(dtype))
        result.addmm_(inner, up.to(dtype).T, alpha=scale)
        ctx.save_for_backward(x, weight, down, up, inner)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, down, up, inner = ctx.saved_tensors
        slope = grads[0].flatten(0, -2).to(ctx.dtype)
        within = (slope @ up.to(ctx.dtype)).mul_(ctx.scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (slope @ weight.to(ctx.dtype)).addmm_(within, down.to(ctx.dtype)).view(x.shape).to(x.dtype)
        of_down = within.T @ x.flatten(0, -2).to(ctx.dtype)
        of_up = (slope.T @ inner).mul_(ctx.scale)
        return of_x, None, None, of_down.to(down.dtype), of_up.to(up.dtype), None


@contextmanager
def leaner(model: Any, *, remembers: bool) -> Iterator[Lean]:
    """The model's layers so that they keep less, until the end. Without ``remembers`` what one gives is kept where the
    next one keeps it: for layers that are computed again as a whole.
    """
    lean = Lean(remembers=remembers)
    with ExitStack() as until_the_end:
        if remembers and (layers := layers_of(model)):
            # By then the first half has left as many holes; what lies behind them is in use until the way back.
            hook = layers[len(layers) // 2].register_forward_pre_hook(_give_back)
            until_the_end.callback(hook.remove)
        for module in model.modules():
            if forward := _leaner(lean, module):
                module.forward = forward
                until_the_end.callback(delattr, module, "forward")
        yield lean


@contextmanager
def uncast(model: Any, *, wanted: bool) -> Iterator[None]:
    """Under autocast, adapters that read what their layer reads. peft makes float32 of it for them, autocast half
    precision of that again, and the copy is kept for the way back beside what it was made of: the same numbers.
    """
    adapters = [one for one in model.modules() if wanted and getattr(one, "cast_input_dtype_enabled", False)]
    try:
        for one in adapters:
            one.cast_input_dtype_enabled = False
        yield
    finally:
        for one in adapters:
            one.cast_input_dtype_enabled = True


def _give_back(*_: object) -> None:
    if torch.is_grad_enabled():
        give_back()


def _leaner(lean: Lean, module: Any) -> Made | None:
    """How a module is computed instead; None where nothing is to be gained."""
    kind = type(module)
    usual = partial(kind.forward, module)
    if kind.__name__.endswith("Norm") or (kind.__module__ in ACTIVATIONS and kind.__name__ not in KEEPS_NOTHING_MORE):
        own = tuple(module.parameters())
        return lambda *inputs, **more: usual(*inputs, **more) if more else lean.made(usual, own, *inputs)
    if _is_gated(module):
        product = partial(_product, partial(type(module.act_fn).forward, module.act_fn))
        own = tuple(module.act_fn.parameters())
        return lambda x: module.down_proj(lean.made(product, own, module.gate_proj(x), module.up_proj(x)))
    if _is_adapted(module):
        (name,) = module.active_adapters
        layer, down, up = module.base_layer, module.lora_A[name], module.lora_B[name]
        scale = module.scaling[name]
        return lambda x: _Adapted.apply(x, layer.weight, layer.bias, down.weight, up.weight, scale)  # type: ignore[no-untyped-call]
    return None


def _product(function: Made, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    opened = function(gate)
    return opened * up if torch.is_grad_enabled() or opened is gate else opened.mul_(up)


def _is_gated(module: Any) -> bool:
    return all(isinstance(getattr(module, part, None), torch.nn.Module) for part in GATED)


def _is_adapted(module: Any) -> bool:
    """Whether it is a plain linear layer with one plain adapter, nothing of it dropped."""
    if type(getattr(module, "base_layer", None)) is not torch.nn.Linear or not getattr(module, "lora_A", None):
        return False
    (name, *more) = module.active_adapters
    dropped = not isinstance(module.lora_dropout[name], torch.nn.Identity)
    return not (more or dropped or module.lora_variant or module.lora_bias[name] or module.merged)
