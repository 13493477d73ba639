"""The report of a run as one page: what it holds, and how it is drawn."""
