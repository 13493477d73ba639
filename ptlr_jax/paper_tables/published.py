"""The paper's own figures, in percent, for the tables that repeat them.

Su, Xu, Zhou and Ouyang, Tables I to VI. Rows and columns are named as in
`ablations`; THUMOS14 except Table II, ActivityNet v1.3 (validation).
"""

_TIOUS = [f"0.{n}0" for n in range(1, 10)]


def _map(text: str) -> dict[str, dict[str, float]]:
  """Lines "name: figures at tIoU 0.1 to 0.9"."""
  rows = {}
  for line in text.strip().splitlines():
    name, _, figures = line.partition(":")
    values = [float(figure) for figure in figures.split()]
    rows[name.strip()] = dict(zip(_TIOUS, values, strict=True))
  return rows


PUBLISHED: dict[int, dict[str, dict[str, float]]] = {
  1: _map(
    """
    Bas-Net: 58.2 52.0 44.6 36.0 27.0 18.6 10.4 3.9 0.5
    Ours: 61.2 55.5 47.1 38.5 29.7 20.1 11.5 4.3 0.3
    """
  ),
  2: {
    "Bas-Net": {"0.50": 34.5, "0.75": 22.5, "0.95": 4.9, "0.5:0.95": 22.2},
    "Ours": {"0.50": 36.9, "0.75": 24.1, "0.95": 5.6, "0.5:0.95": 23.7},
  },
  3: _map(
    """
    ILG w/o cs & tm: 57.5 51.2 43.7 35.5 26.2 17.9 10.1 3.8 0.5
    ILG w/o tm: 58.3 52.1 44.5 36.1 26.5 18.7 10.5 3.5 0.3
    ILG w/o cs: 58.7 52.9 45.7 36.5 27.1 18.5 10.7 3.9 0.3
    ILG: 59.1 53.2 45.5 37.1 27.9 19.2 11.6 4.2 0.4
    """
  ),
  4: {
    "ILG w/o cs & tm": {"precision": 81.2, "recall": 23.4},
    "ILG w/o tm": {"precision": 79.8, "recall": 29.1},
    "ILG w/o cs": {"precision": 81.9, "recall": 30.5},
    "ILG": {"precision": 80.5, "recall": 37.4},
  },
  5: _map(
    """
    PTLR-OTS, stage 1: 57.7 51.9 44.5 36.9 27.5 18.3 10.2 4.2 0.4
    PTLR-OTS, stage 2: 58.2 52.6 45.1 37.2 27.8 18.6 10.5 4.3 0.4
    PTLR-OTS, stage 3: 58.9 52.9 44.8 36.9 27.9 18.2 10.4 4.2 0.3
    PTLR-OTS, stage 4: 58.5 52.6 44.9 36.5 27.4 18.3 10.3 4.2 0.3
    PTLR-RTS, stage 1: 58.7 52.8 45.1 37.3 27.9 18.9 10.3 4.2 0.4
    PTLR-RTS, stage 2: 59.5 53.7 45.9 37.6 28.3 19.3 10.5 4.1 0.5
    PTLR-RTS, stage 3: 59.8 53.6 46.2 37.7 27.9 19.1 10.2 4.1 0.4
    PTLR-RTS, stage 4: 59.3 53.1 45.7 37.3 27.7 19.0 10.2 4.3 0.4
    PTLR, stage 1: 59.5 53.6 45.9 37.7 28.5 19.5 10.7 4.1 0.3
    PTLR, stage 2: 60.7 54.9 46.5 38.2 29.1 20.0 11.2 4.5 0.3
    PTLR, stage 3: 61.2 55.5 47.1 38.5 29.7 20.1 11.5 4.3 0.3
    PTLR, stage 4: 60.1 55.1 46.9 38.2 29.2 19.8 11.3 4.1 0.4
    """
  ),
  6: {
    "Network-OTS, stage 1": {"precision": 81.4, "recall": 42.2},
    "Network-RTS, stage 1": {"precision": 82.6, "recall": 49.6},
    "Network-OTS, stage 2": {"precision": 78.9, "recall": 55.1},
    "Network-RTS, stage 2": {"precision": 79.2, "recall": 61.3},
    "Network-OTS, stage 3": {"precision": 74.5, "recall": 63.1},
    "Network-RTS, stage 3": {"precision": 73.2, "recall": 67.4},
    "Network-OTS, stage 4": {"precision": 70.1, "recall": 68.9},
    "Network-RTS, stage 4": {"precision": 69.7, "recall": 70.3},
  },
}
