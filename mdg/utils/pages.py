"""Pages that need nothing but themselves, from templates that lie beside the code that fills them."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

import mdg

PACKAGE = Path(mdg.__file__).parent


def render(template: Path, **values: Any) -> str:
    """A page as HTML; every value is escaped, and one that is missing is an error.

    Args:
        template: A file inside the package; it extends ``mdg/utils/page.html``.
        values: What it shows.
    """
    import jinja2  # here, because most commands end on the terminal

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    name = template.relative_to(PACKAGE.parent).as_posix()
    when = datetime.now().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(name).render(version=mdg.__version__, when=when, **values)


def data_uri(data: bytes, kind: str) -> str:
    """A picture inside a page; ``kind`` is ``png`` or ``jpeg``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
