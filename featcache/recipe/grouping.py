"""How a recipe says which photos must not be divided."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def _checked(rule: str) -> str:
    if rule == "folder":
        return rule
    allowed = 'give "folder", or a regular expression with one group in parentheses, such as "(.*)_[0-9]+"'
    try:
        count = re.compile(rule).groups
    except re.error as error:
        raise ValueError(f"{rule!r} is not a regular expression ({error}); {allowed}") from None
    if count != 1:
        raise ValueError(f"{rule!r} has {count} groups in parentheses; {allowed}")
    return rule


GroupRule = Annotated[str, AfterValidator(_checked)]
"""What photos that belong together have in common.

"folder": the name of the folder in the class folder that they lie in. Otherwise a regular expression with one
group in parentheses: what that finds in the file's name, without its folders (`re.search`).
"""
