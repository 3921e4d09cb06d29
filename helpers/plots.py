"""Figures that several notebooks share. Labels are English: matplotlib's own font has no Chinese characters."""


def loss_curve(log_history: list[dict], title: str = "training loss"):
    """Draw ``trainer.state.log_history``: training loss per step, held-out loss where it was measured."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3))
    for key, style, label in (("loss", "-o", "training"), ("eval_loss", "--s", "held out")):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, markersize=3, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", title=title)
    axes.legend()
    figure.tight_layout()
    plt.show()


def live_loss(seconds: float = 3.0):
    """Return a TrainerCallback that draws the loss while training, at most once every ``seconds``."""
    import time

    import matplotlib.pyplot as plt
    from IPython.display import display
    from transformers import TrainerCallback

    class LiveLoss(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.figure, self.axes = plt.subplots(figsize=(6, 3))
            self.handle, self.drawn = display(self.figure, display_id=True), 0.0

        def on_log(self, args, state, control, **kwargs):
            if time.monotonic() - self.drawn >= seconds:
                self.draw(state)

        def draw(self, state):
            self.axes.clear()
            for key, style, label in (("loss", "-o", "training"), ("eval_loss", "--s", "held out")):
                points = [(entry["step"], entry[key]) for entry in state.log_history if key in entry]
                if points:
                    self.axes.plot(*zip(*points, strict=True), style, markersize=3, label=label)
                    self.axes.legend()
            self.axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", xlim=(0, state.max_steps + 1))
            self.figure.tight_layout()
            self.handle.update(self.figure)
            self.drawn = time.monotonic()

        def on_train_end(self, args, state, control, **kwargs):
            self.draw(state)
            plt.close(self.figure)  # shown already; inline backends would show it a second time

    return LiveLoss()


def before_after(rows: dict[str, tuple[tuple, tuple]], title: str = "perplexity on held-out text (95 % interval)"):
    """Draw {label: ((value, low, high) before, (value, low, high) after)} as points with intervals."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 0.7 + 0.7 * len(rows)))
    for y, pair in enumerate(rows.values()):
        for (value, low, high), color, shift, name in zip(
            pair, ("C7", "C0"), (0.12, -0.12), ("before", "after"), strict=True
        ):
            axes.errorbar(
                value,
                y + shift,
                xerr=[[value - low], [high - value]],
                fmt="os"[name == "after"],
                color=color,
                capsize=3,
                label=name if y == 0 else None,
            )
            axes.annotate(f"{value:.2f}", (value, y + shift), textcoords="offset points", xytext=(6, 5), fontsize=8)
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), title=title, ylim=(-0.5, len(rows) - 0.5))
    axes.margins(x=0.15)  # room for the number beside the last point
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # beside the axes: it never hides a point
    figure.tight_layout()
    plt.show()
