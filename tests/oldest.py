"""Print the lowest version of everything that pyproject.toml names, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
for requirement in [*project["dependencies"], *(line for lines in extras for line in lines)]:
    if named := re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement):
        print("==".join(named.groups()))
