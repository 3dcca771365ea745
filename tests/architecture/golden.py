"""Write the list of public stage names anew, after deciding that a name shall come, change or go: `make golden`."""

from pathlib import Path

from pipelines.resolve import catalogue

GOLDEN = Path(__file__).with_name("stages.txt")

if __name__ == "__main__":
    GOLDEN.write_text("".join(f"{name}\n" for name in sorted(catalogue())))
