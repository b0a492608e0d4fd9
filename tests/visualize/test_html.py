"""A page of one file: text escaped, the script allowed by the hash of what stands in it, no value forgotten."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from sslctl.visualize.html import render_html


def test_text_is_escaped_and_the_hash_is_that_of_the_script_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>{{ text }}</p> sha256-{{ script_hash }} <script>{{ script | safe }}</script>")
    (tmp_path / "a.js").write_text("const a = 1 < 2;")
    page = render_html(tmp_path / "a.html", text="<b>&")
    assert "<p>&lt;b&gt;&amp;</p>" in page
    (script,) = re.findall(r"<script>(.*?)</script>", page)
    assert script == "const a = 1 < 2;"
    assert f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()} " in page
    with pytest.raises(UndefinedError, match="text"):
        render_html(tmp_path / "a.html")
