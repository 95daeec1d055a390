"""A verdict on each claim of the paper, computed from its printed numbers, arithmetic and records.

No answer is stored: a claim names the quantity that it prints, and its value is compared with arithmetic, with other
printed values of the quantity (in the text or a table) and with measurements (records).  If a printed number changes,
so does its verdict.  Imports no torch.
"""

from varient.claims.rendering import read_judgements, write_claims, write_judgements
from varient.claims.tally import summary
from varient.claims.verdicts import Judgement, Verdict, judge

__all__ = ["Judgement", "Verdict", "judge", "read_judgements", "summary", "write_claims", "write_judgements"]
