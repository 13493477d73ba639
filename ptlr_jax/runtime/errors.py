"""The errors that `main` shows as lines, without a traceback."""

from collections.abc import Sequence

MAX_LINES = 20


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


class Damaged(InputError):
  """An artefact of a workdir is not, to the bit, what was written."""


class OtherVersion(InputError):
  """An artefact is sound, or may be, but not of this version's form."""


class Diverged(ArithmeticError):
  """A loss, gradient or parameter is not finite; the message names the steps.

  `step` is the first update that shows it, from 1, and `members` the runs,
  where several are trained at once.
  """

  def __init__(self, message: str, step: int = 0, members: Sequence[int] = ()):
    super().__init__(message)
    self.step, self.members = step, tuple(members)


class Absent(RuntimeError):
  """Other processes of the run are not there; who is, and where."""


class NoSpace(OSError):
  """A disk is full, or would be; the message says what, where, how much."""


class Stopped(BaseException):
  """A signal asked the run to end; the message says what is saved, where.

  Not an `Exception`, as KeyboardInterrupt is none: nothing but the command
  line may catch it for good.
  """
