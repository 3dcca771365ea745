"""Write the list of public stage names and the schema of recipes anew, after deciding on a change: `make golden`."""

from pathlib import Path

from pipelines.resolve import catalogue
from pipelines.schema import PACKAGED, schema_text

GOLDEN = Path(__file__).with_name("stages.txt")

if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{name}\n" for name in sorted(catalogue())))
    PACKAGED.write_text(schema_text(), encoding="utf-8")
