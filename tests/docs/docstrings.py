"""How the site reads docstrings: a section `Example:` is code with what it prints."""

import re

from griffe import Extension, Object

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class Examples(Extension):
    """Gives the sections the name that griffe reads as code, not as a note."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rename the section in an object's docstring, before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub("Examples:", obj.docstring.value)
