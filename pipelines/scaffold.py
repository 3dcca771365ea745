"""`gristmill init`: a recipe to change, a filter of one's own beside it, and the schema for the editor."""

from __future__ import annotations

from pathlib import Path

from manifests.place import replace_file
from pipelines.recipe import RecipeError
from pipelines.schema import PACKAGED

RECIPE = """# yaml-language-server: $schema=recipe.schema.json
# What would run, and why:   gristmill plan {file}
# Run it:                    gristmill run {file}
# Look at it:                gristmill sql "from funnel('{name}')";  gristmill report {name}
name: {name}
params:
  paths: {paths}
  languages: [en, de, fr, es, ru, zh, ja]
steps:
  crawl:    {{uses: stages.ingest.warc.pages, with: {{paths: "${{paths}}"}}}}
  text:     {{uses: stages.extract.resiliparse.main_text, from: crawl}}
  language: {{uses: classifiers.language.identify, from: text, with: {{keep: "${{languages}}"}}}}
  quality:  {{uses: stages.filters.gopher.quality, from: language}}
  calm:     {{uses: {module}.shouting, from: quality, with: {{most: 0.3}}}}     # yours: {module}.py
  twins:    {{uses: stages.dedup.exact.documents, from: calm}}
  web:      {{uses: stages.compact.keep, from: [calm, twins]}}
  files:    {{uses: stages.export.parquet.files, from: web}}
publish: {{{name}_files: files}}
run: {{max_error_rate: 0.02}}
"""
FILTER = '''"""A filter of your own: a function of a table, beside the recipe that names it."""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.contract import TEXT, Params, map_stage


class Shouting(Params):
    """Every parameter has a type and a description; `gristmill stages show {module}.shouting` prints them."""

    most: float = Field(0.3, ge=0, le=1, description="Largest share of capital letters.")


@map_stage(version=1, reads={{"text": TEXT}}, writes={{"drop_reason": pa.string(), "capitals": pa.float64()}})
def shouting(batch: pa.Table, params: Shouting) -> pa.Table:
    """Name a reason for documents in capitals; null means keep. `capitals` is the share that decided."""
    capitals = pc.count_substring_regex(batch["text"], r"\\p{{Lu}}")
    share = pc.round(pc.divide(pc.cast(capitals, pa.float64()), pc.max_element_wise(pc.utf8_length(batch["text"]), 1)), 4)
    reason = pc.if_else(pc.greater(share, params.most), pa.scalar("shouting"), pa.scalar(None, pa.string()))
    return pa.table({{"drop_reason": reason, "capitals": share}})
'''
SAMPLE = Path(__file__).parent / "recipes" / "sample" / "sample.warc.gz"


def scaffold(path: Path, paths: str | None) -> list[Path]:
    """Write a recipe, its filter and the schema; RecipeError when a file is there already or the name will not do."""
    name = path.stem.replace("-", "_")
    if path.suffix not in (".yaml", ".yml") or not name.isidentifier() or name != name.lower() or name.startswith("_"):
        raise RecipeError(f"{path}: a recipe's file is named like its SQL schema: lower case letters, digits and _, and .yaml")
    module = f"{name}_filters"
    files = {
        path: RECIPE.format(name=name, file=path, module=module, paths=paths or SAMPLE),
        path.with_name(f"{module}.py"): FILTER.format(module=module),
        path.with_name("recipe.schema.json"): PACKAGED.read_text(encoding="utf-8"),
    }
    there = [str(f) for f in files if f.exists() and f.name != "recipe.schema.json"]
    if there:
        raise RecipeError(f"{', '.join(there)}: already there, and left as it is; name another recipe")
    for file, content in files.items():
        replace_file(file, content.encode())
    return list(files)
