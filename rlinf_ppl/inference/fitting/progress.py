"""Progress of long work on the terminal and in notebooks."""

from collections.abc import Callable
from typing import Any


class progress_bar:
    """A tqdm bar over steps, or nothing; gives a function (steps run, loss) -> None."""

    def __init__(self, total: int, shown: bool):
        self.total, self.shown = total, shown

    def __enter__(self) -> Callable[[int, float], None]:
        if not self.shown:
            return lambda ran, loss: None
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.total, desc="svi", unit="step")
        return self.report

    def report(self, ran: int, loss: float) -> None:
        """Move the bar."""
        self.bar.update(ran)
        self.bar.set_postfix(elbo=f"{-loss:.6g}")

    def __exit__(self, *exception: Any) -> None:
        if self.shown:
            self.bar.close()
