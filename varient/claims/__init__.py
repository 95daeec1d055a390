"""A verdict on each claim of the paper (claims.csv, cells, rankings), computed from its numbers, arithmetic, records.

Nothing here knows an answer: a claim says which quantity it prints, and whoever can compute that quantity (arithmetic),
has printed it too (another table, the text) or has measured it (records) is asked.  Change a printed number, and its
verdict changes.  Imports no torch; without records it takes seconds on any machine.
"""

from varient.claims.rendering import write_claims
from varient.claims.verdicts import Judgement, Verdict, judge

__all__ = ["Judgement", "Verdict", "judge", "write_claims"]
