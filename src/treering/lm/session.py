"""One training: from its first step, or where it was killed, to the end of its budget, through lack of memory."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from treering.errors import Incomplete, ModelError
from treering.lm import checkpoint
from treering.lm.base import layers_of
from treering.lm.data import TOO_FEW, Blocks, HeldOut, Split, sequences
from treering.lm.hardware import compiles
from treering.lm.plan import Plan
from treering.lm.processes import count, of_host, placed, rank, shard, strategy, whole
from treering.lm.recipe import Recipe, Training, limit, steps
from treering.report import Reporter

LOOKS = 6
"""How often the validation documents are looked at: in equal parts of the budget."""
PATIENCE = 3
RISE = 1.02
"""Where so many looks in a row are worse than the best by this factor, training stops and the best is what it gives.
Over fewer documents than a figure needs a look says too little for that."""
COMPILED_FROM = 10.0
"""Minutes of training from which on compiling the model pays."""
SAVING_SHARE = 0.05
"""Of the time, at most so much goes into checkpoints."""


class Session:
    """One training, through interruptions and lack of memory."""

    def __init__(
        self,
        model: Any,
        data: Split,
        recipe: Recipe,
        plan: Plan,
        report: Reporter,
        name: str,
        checkpoints: Path,
        separator: int,
        save_seconds: float,
    ) -> None:
        from treering.lm.module import Budget

        self.model, self.recipe, self.plan, self.report = model, recipe, plan, report
        self.checkpoints, self.save_seconds = checkpoints, save_seconds
        self.blocks = Blocks(data.train, recipe.sequence_length)
        self.watched = _watched(data.validation, separator, recipe.sequence_length)
        self.enough = len(data.validation.documents) >= TOO_FEW
        self.budget = Budget(steps(len(self.blocks), recipe), recipe.minutes * 60)
        self.progress = checkpoint.Progress(name, batch_size=plan.batch_size, accumulate=plan.accumulate)
        self.resumed_at = 0
        self.stopped_by = ""
        self.optimizer: Any = None
        self._optimizer_state: dict[str, Any] = {}
        self._device = ""
        self._saved = self._saving = self._told = 0.0
        self._stop = False
        self.may_go_on: Callable[[], bool] = lambda: True
        self._step_tokens: dict[int, int] = {}
        wanted = plan.compile and recipe.minutes >= COMPILED_FROM
        self.compiled = wanted and compiles()
        if wanted and not self.compiled:
            report.warn(
                "torch.compile lacks Triton, a C compiler (gcc, clang or CC) or Python's headers (python3-dev) here:"
                " the training goes on without it"
            )
        if self.compiled:
            for layer in layers_of(model):
                layer.compile()
        if plan.gradient_checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    # the state -------------------------------------------------------------------------------------------------------

    def trained(self) -> dict[str, Any]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def resume(self, progress: checkpoint.Progress, weights: dict[str, Any], optimizer: dict[str, Any]) -> None:
        """Take up the state of an earlier run."""
        self.progress, self._optimizer_state = progress, optimizer
        self.resumed_at = self.progress.step
        self._cut(self.progress.batch_size)  # there may be more or fewer processes than then
        self.budget.before = self.progress.gone
        import torch

        with torch.no_grad():
            for name, parameter in self.trained().items():
                parameter.copy_(weights[name])
        self.report.say(f"going on after step {self.progress.step:,} of an earlier run")

    def make_optimizer(self) -> Any:
        """AdamW over what is trained; once, for a training that goes on with other micro-batches keeps its state."""
        import torch

        if self.optimizer is None:
            group = {"params": list(self.trained().values()), "peak": self.recipe.learning_rate}
            fused = self.plan.device == "cuda" and self.plan.precision != "16-mixed"  # it cannot be clipped there
            self.optimizer = torch.optim.AdamW(
                [group], lr=self.recipe.learning_rate, weight_decay=0.0, fused=fused or None
            )
            for name, parameter in self.trained().items():
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if (value := self._optimizer_state.get(f"{name}/{key}")) is not None:
                        if fused or key != "step":  # a fused one counts its steps where it computes
                            value = value.to(parameter.device)
                        self.optimizer.state[parameter][key] = value if key == "step" else placed(value, parameter)
            self._optimizer_state = {}
        return self.optimizer

    def save(self, trainer: Any) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.progress.scaler = scaler.state_dict() if scaler else None
        self.progress.gone = self.budget.gone()
        trained = self.trained()
        weights: dict[str, Any] = {}
        state: dict[str, Any] = {}
        for name, parameter in trained.items():
            for key, value in (("", parameter.detach()), *self.optimizer.state[parameter].items()):
                kept = whole(value)  # every process helps to put it together, one keeps it
                if rank() == 0:
                    (state if key else weights)[f"{name}/{key}" if key else name] = kept.cpu()
        if rank() == 0:
            checkpoint.save(self.checkpoints, self.progress, weights, state)

    # the run ---------------------------------------------------------------------------------------------------------

    def tokens_of(self, step: int) -> int:
        return self._step_tokens[step]

    def micro_batches(self) -> Iterator[list[int]]:
        """The blocks of each micro-batch of this process, from the step that is next to the last of the budget."""
        size, share = self.recipe.batch_size, self.recipe.batch_size // count()
        order = sequences(len(self.blocks), self.recipe.seed, self.progress.step * size)
        for step in range(self.progress.step, self.budget.steps):
            group = [next(order) for _ in range(size)]
            self._step_tokens[step] = sum(self.blocks.predicted(number) for number in group)
            mine = group[rank() * share : (rank() + 1) * share]
            for start in range(0, share, self.progress.batch_size):
                yield mine[start : start + self.progress.batch_size]

    def ran(self) -> bool:
        """Train to the end of the budget. False where memory ran out: the next try computes fewer sequences at once."""
        import torch

        if self.progress.step >= self.budget.steps:
            self.stopped_by = self.stopped_by or "epochs"
            return True
        try:
            self._fit()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            lacking = str(error).partition("\n")[0]
        else:
            return True
        self._halve(lacking)
        return False

    def _halve(self, lacking: str) -> None:
        """Outside of the exception, whose frames hold the memory that is lacking."""
        if self.progress.batch_size == 1 or count() > 1:
            raise ModelError(
                f"there is not enough memory to train on {self.progress.batch_size} sequence(s) at once: {lacking}",
                "--method lora, a shorter --sequence-length or a smaller --model need less: `treering doctor --train`",
            )
        self._cut(self.progress.batch_size // 2)
        if self.optimizer:
            self.optimizer.zero_grad()
        self.report.warn(
            f"out of memory: going on with {self.progress.batch_size} sequence(s) at once and"
            f" {self.progress.accumulate} micro-batches a step"
        )

    def _cut(self, most: int) -> None:
        """Part a step into micro-batches of at most so many sequences."""
        share = self.recipe.batch_size // count()
        size = max(size for size in range(1, min(most, share) + 1) if share % size == 0)
        self.progress.batch_size, self.progress.accumulate = size, share // size

    def _fit(self) -> None:
        """Train with what makes the same of the model in less memory and time."""
        from treering.lm.lean import Lean, leaner
        from treering.lm.module import chunked_loss, whole_loss

        cheap = self.plan.device == "cpu" and not self.recipe.sharded
        usual = self._tried(whole_loss) if not self.recipe.sharded else math.nan
        with ExitStack() as until_the_end:
            lean = Lean(remembers=False)
            if cheap:
                lean = until_the_end.enter_context(leaner(self.model, remembers=not self.plan.gradient_checkpointing))
                if not math.isclose(usual, self._tried(whole_loss), rel_tol=1e-3):
                    until_the_end.close()
                    lean = Lean(remembers=False)
                    self.report.warn("this model's layers are of another kind: they take the usual memory and time")
            chunked = self.plan.chunked_loss and not self.recipe.sharded
            if chunked and not math.isclose(usual, self._tried(chunked_loss), rel_tol=1e-3):
                chunked = False
                self.report.warn("this model's logits are more than a product: its loss is not made in chunks")
            self._run(lean, chunked=chunked)

    def _tried(self, loss: Callable[..., Any]) -> float:
        """The loss of a few tokens; no number where the model has not what is asked of it."""
        import torch

        from treering.lm.module import collate

        inputs, labels = (part.to(self.model.device) for part in collate([self.blocks[0][:17]]))
        self.model.eval()
        try:
            with torch.no_grad(), self._uncompiled():
                return float(loss(self.model, inputs, labels))
        except AttributeError:
            return math.nan
        finally:
            self.model.train()

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """For what is computed now and then: to compile it too, and for the CPU before, takes longer than it saves."""
        import torch

        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def _run(self, lean: Any, *, chunked: bool) -> None:
        import lightning
        import torch

        from treering.lm.lean import uncast
        from treering.lm.module import LanguageModule, collate

        mixed = self.plan.precision != "32-true"
        accumulate = self.progress.accumulate
        module = LanguageModule(
            self.model, self.make_optimizer, self.budget, seed=self.recipe.seed, first_step=self.progress.step,
            parts=accumulate * count(), tokens_of=self.tokens_of, chunked=chunked, lean=lean,
            shard=partial(shard, self.model) if self.recipe.sharded and self.optimizer is None else None,
        )  # fmt: skip
        session = self

        class Order(torch.utils.data.Sampler[list[int]]):
            def __len__(self) -> int:
                return (session.budget.steps - module.first_step) * accumulate

            def __iter__(self) -> Iterator[list[int]]:
                return session.micro_batches()

        class Watch(lightning.Callback):  # type: ignore[misc]  # Lightning is not typed for strict
            def on_train_start(self, trainer: Any, *_: Any) -> None:
                session.begin(trainer)

            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                if module.step > session.progress.step:
                    session.stepped(trainer, module)

        trainer = lightning.Trainer(
            accelerator="auto" if self.recipe.gpu else "cpu", devices=of_host(), num_nodes=count() // of_host(),
            strategy=strategy(sharded=self.recipe.sharded), precision=self.plan.precision, max_epochs=1,
            accumulate_grad_batches=accumulate, gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch()], num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )  # fmt: skip
        loader: Any = torch.utils.data.DataLoader(self.blocks, batch_sampler=Order(), collate_fn=collate)  # type: ignore[arg-type]  # blocks are a data set
        try:
            with self._asked_to_stop(), uncast(self.model, wanted=mixed and self.recipe.method != "full"):
                trainer.fit(module, loader)
        except SystemExit as error:  # what Lightning makes of a signal
            raise KeyboardInterrupt from error

    @contextmanager
    def _asked_to_stop(self) -> Iterator[None]:
        """Ctrl-C ends the training after the step under way, with a checkpoint; a second one ends it at once."""
        before = signal.getsignal(signal.SIGINT)
        alone = count() == 1 and threading.current_thread() is threading.main_thread()
        if not alone or before is not signal.default_int_handler:
            yield
            return

        def ask(*_: object) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def begin(self, trainer: Any) -> None:
        """When everything is loaded: from here on the time counts."""
        self._device = str(trainer.strategy.root_device)
        if self.progress.scaler and getattr(trainer.precision_plugin, "scaler", None):
            trainer.precision_plugin.scaler.load_state_dict(self.progress.scaler)
        self.budget.before, self.budget.started = self.progress.gone, time.monotonic()
        self.budget.look(self.progress.step)
        self._saved, self._saving = time.monotonic(), 0.0
        self._told = 0.0
        if not self.progress.validation:
            self._look(trainer)

    def stepped(self, trainer: Any, module: Any) -> None:
        """After an optimizer step: note it, look at the validation documents, stop, save."""
        progress, budget = self.progress, self.budget
        loss = module.take_loss(progress.step)
        if not math.isfinite(loss):
            raise ModelError(f"the loss became {loss} at step {progress.step + 1}", "lower the learning rate")
        progress.tokens += self._step_tokens.pop(progress.step)
        progress.losses.append(loss)
        progress.rates.append(module.trainer.optimizers[0].param_groups[0]["lr"])
        progress.step += 1
        before = budget.spent
        budget.look(progress.step)
        if trainer.world_size > 1:  # the clocks of several processes are not the same
            budget.spent = trainer.strategy.broadcast(budget.spent)
        progress.gone = budget.gone()
        progress.seconds.append(round(progress.gone, 3))
        if int(budget.spent * LOOKS) > int(before * LOOKS):
            self._look(trainer)
        if budget.spent >= 1:
            trainer.should_stop = True
            self.stopped_by = limit(budget.steps, self.recipe) if progress.step >= budget.steps else "minutes"
        elif self._patience_is_over():
            trainer.should_stop = True
            self.stopped_by = "validation"
        self._say(last=bool(trainer.should_stop))
        self._keep(trainer)
        if trainer.should_stop:
            return
        if self._stop:
            self.save(trainer)
            raise KeyboardInterrupt
        asked = time.monotonic()
        if not self.may_go_on():
            self.save(trainer)
            raise Incomplete("the training may not go on now", "run it again: it goes on from its checkpoint")
        self.budget.started += time.monotonic() - asked

    def _look(self, trainer: Any) -> None:
        """The mean loss of the validation documents."""
        import torch

        from treering.lm.module import collate, whole_loss

        if not self.watched:
            return
        self.model.eval()
        nats, tokens = 0.0, 0
        with torch.no_grad(), self._uncompiled(), trainer.precision_plugin.forward_context():
            for block in self.watched:
                inputs, labels = (part.to(trainer.strategy.root_device) for part in collate([block]))
                nats += float(whole_loss(self.model, inputs, labels))
                tokens += len(block) - 1
        self.model.train()
        if self.recipe.sharded:
            self.model.reshard()  # what looks only does not do it at its end
        loss = nats / tokens
        self.progress.validation.append((self.progress.step, loss))
        if self.progress.best is None or loss < self.progress.best:
            self.progress.best = loss
            if self.progress.step and count() == 1:
                checkpoint.save_best(self.checkpoints, {name: one.detach() for name, one in self.trained().items()})

    def _patience_is_over(self) -> bool:
        losses = [loss for _, loss in self.progress.validation]
        told = count() == 1 and self.enough and len(losses) > PATIENCE
        return told and min(losses[-PATIENCE:]) > RISE * min(losses[:-PATIENCE])

    def _say(self, *, last: bool) -> None:
        if rank() == 0 and (last or time.monotonic() - self._told > 15):
            self._told = time.monotonic()
            read = self.progress.step * self.recipe.batch_size
            epoch = min((read - 1) // len(self.blocks), self.recipe.epochs - 1)
            done = read / len(self.blocks) - epoch
            steps_of_epoch = max(1, round(done * len(self.blocks) / self.recipe.batch_size))
            line = _line(epoch, self.recipe.epochs, min(done, 1.0), self.progress.losses[-steps_of_epoch:])
            self.report.say(f"{line}  ({self.budget.spent:.0%} of the budget)")

    def _keep(self, trainer: Any) -> None:
        """A checkpoint, when the last is old enough for what it costs."""
        wait = max(self.save_seconds, self._saving / SAVING_SHARE) if self.save_seconds else 0.0
        due = time.monotonic() - self._saved >= wait
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)
        if due and not trainer.should_stop:
            started = time.monotonic()
            self.save(trainer)
            self._saved = time.monotonic()
            self._saving = self._saved - started

    # the end ---------------------------------------------------------------------------------------------------------

    def result(self, made: Callable[[], Any]) -> Any:
        """The trained model, whole, on the CPU; the best one seen if it got worse from there on."""
        import torch

        weights = {name: whole(parameter.detach()).cpu() for name, parameter in self.trained().items()}
        if self.stopped_by == "validation":
            weights = checkpoint.best(self.checkpoints)
        rounded = self.recipe.method == "qlora" or self.plan.base_dtype != "float32"
        model = made() if self.recipe.sharded or rounded or not weights else self.model.to("cpu")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        if self.plan.gradient_checkpointing:
            model.activation_checkpointing_disable()
        if self.compiled:
            for layer in layers_of(model):  # whoever judges it computes it a few times, maybe elsewhere
                layer._compiled_call_impl = None
        return model

    def told(self) -> Training:
        import torch

        progress = self.progress
        every = max(1, -(-progress.step // 200))
        points = sorted({*range(every - 1, progress.step, every), progress.step - 1}) if progress.step else []
        tokens = progress.tokens / max(progress.step, 1)
        return Training(
            steps=progress.step,
            tokens=progress.tokens,
            seconds=round(progress.gone, 2),
            losses=tuple(round(loss, 4) for loss in progress.losses),
            epochs_done=round(progress.step * self.recipe.batch_size / len(self.blocks), 3),
            stopped_by=self.stopped_by,
            device=self._device,
            precision=self.plan.precision,
            batch_size=progress.batch_size,
            accumulate=progress.accumulate,
            processes=count(),
            trained_parameters=sum(parameter.numel() for parameter in self.trained().values()),
            resumed_at=self.resumed_at,
            peak_memory=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
            curve=tuple(
                (one + 1, progress.seconds[one], round(tokens * (one + 1)), progress.rates[one]) for one in points
            ),
            validation=tuple((step, round(loss, 4)) for step, loss in progress.validation),
        )


def _watched(validation: HeldOut, separator: int, length: int) -> list[Any]:
    """The validation documents as blocks."""
    import numpy as np

    if not validation.documents:
        return []
    parts = [part for document in validation.documents for part in (document, np.array([max(separator, 0)]))]
    stream = np.concatenate(parts)
    return [stream[start : start + length + 1] for start in range(0, len(stream) - 1, length)]


def _is_lack_of_memory(error: BaseException) -> bool:
    import torch

    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said or "out of memory" in said


def _line(epoch: int, epochs: int, done: float, losses: list[float]) -> str:
    bar = "█" * round(20 * done)
    mean = sum(losses) / len(losses)
    return f"Epoch {epoch + 1}/{epochs}:  [{bar:<20}] {done:4.0%}  Loss: {mean:.3f}"
