"""The systems that VARiant is compared with, as families of `varient.systems`: CoDe, DiT, LlamaGen.

Their code is the folder `baselines/` beside this package; an installed package has it in here.
"""

from pathlib import Path

__path__ = [*__path__, str(Path(__file__).parents[2] / "baselines")]
