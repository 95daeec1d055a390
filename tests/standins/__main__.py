import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the tests, as pytest has it

from standins import write_standins

if len(sys.argv) != 2:
    sys.exit("usage: python tests/standins FOLDER")
print(f"wrote {write_standins(Path(sys.argv[1]))}")
