"""The errors that `main` shows as lines, without a traceback."""

MAX_LINES = 20


class Diverged(ArithmeticError):
  """A loss or gradient is not finite; the message names the steps."""


class InputError(ValueError):
  """A mistake in what the user gave; one line per problem.

  `main` prints `lines` without a traceback and exits with status 2. A line says
  what was expected, what came and the way out, with the file's name.
  """

  def __init__(self, *problems: str):
    # An id or a label from a file may hold a line break.
    self.problems = tuple(" ".join(p.splitlines()) for p in problems)
    super().__init__(*self.problems)

  @property
  def lines(self) -> tuple[str, ...]:
    """The problems to print: at most `MAX_LINES`, then `and N more`."""
    more = len(self.problems) - MAX_LINES
    if more <= 0:
      return self.problems
    return (*self.problems[:MAX_LINES], f"and {more} more")

  def __str__(self) -> str:
    return "\n".join(self.lines)
