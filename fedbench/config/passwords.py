"""Passwords in the addresses of stores and servers: what is shown or written down has none."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"


def without_passwords(text: str) -> str:
    """A text in which each password of an address is replaced by three asterisks.

    >>> without_passwords("postgresql://me:s3cret@db/studies?sslpassword=0ther&sslmode=require")
    'postgresql://me:***@db/studies?sslpassword=***&sslmode=require'
    """
    text = re.sub(r"(://[^:/@\s]*:)[^\s'\"]*@", rf"\1{MASK}@", text)
    return re.sub(r"(?i)\b((?:\w*password|passwd|pwd|\w*token)=)[^&\s'\"]+", rf"\1{MASK}", text)


def masked(values: Any) -> Any:
    """Nested plain values with `without_passwords` applied to every text in them."""
    if isinstance(values, Mapping):
        return {key: masked(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked(value) for value in values]
    return without_passwords(values) if isinstance(values, str) else values


def is_masked(text: str) -> bool:
    """Whether a password is left out of an address.

    >>> is_masked("http://me:***@host"), is_masked("http://host")
    (True, False)
    """
    return f":{MASK}@" in text or f"={MASK}" in text
