"""Pages of one file: a template with its own script, escaped text, and no address."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_html(template: Path, **values: Any) -> str:
    """Render ``template``, an .html file, with the .js file next to it as its script.

    ``values`` are escaped. The template's policy allows the script by its hash, ``script_hash``, and nothing else.
    """
    script = template.with_suffix(".js").read_text("utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template.name).render(script=script, script_hash=script_hash, **values)
