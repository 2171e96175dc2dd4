"""What SARIF 2.1.0 demands of the objects that drumgate writes, written out from the standard.

OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0" (2020), section 3: of each
object the properties that it shall have, and those that it may. A property that the standard does
not name is an error, as in the schema that belongs to it (`additionalProperties: false`); tools
keep their own in `properties`. The tables hold what drumgate could write, not the whole standard,
so that a property added in the code has to be looked up and added here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

Check = Callable[[Any, str], list[str]]

LEVELS: Final = ("none", "note", "warning", "error")


def text(value: Any, where: str) -> list[str]:
    return [] if isinstance(value, str) else [f"{where}: is no string"]


def filled(value: Any, where: str) -> list[str]:
    return [] if isinstance(value, str) and value.strip() else [f"{where}: is no text"]


def flag(value: Any, where: str) -> list[str]:
    return [] if isinstance(value, bool) else [f"{where}: is no boolean"]


def whole(least: int) -> Check:
    def check(value: Any, where: str) -> list[str]:
        right = type(value) is int and value >= least
        return [] if right else [f"{where}: is no integer >= {least}"]

    return check


def one_of(*names: str) -> Check:
    return lambda value, where: [] if value in names else [f"{where}: {value!r} is not allowed"]


def uri(value: Any, where: str) -> list[str]:
    """3.10.1: a URI reference after RFC 3986; only its characters, and % before two hex digits."""
    if not isinstance(value, str) or not value:
        return [f"{where}: is no URI"]
    if not re.fullmatch(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+", value):
        return [f"{where}: {value!r} holds characters that a URI may not"]
    parts = urlsplit(value)
    # 3.10.1: a file URI has an authority, if an empty one; elsewhere backslashes are no separators.
    return [f"{where}: {value!r} has no //"] if parts.scheme == "file" and "//" not in value else []


def listed(check: Check, *, least: int = 0, unique: bool = False) -> Check:
    def of_list(value: Any, where: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{where}: is no array"]
        found = [f"{where}: has fewer than {least} items"] if len(value) < least else []
        if unique and len({str(item) for item in value}) < len(value):
            found.append(f"{where}: holds an item twice")
        for number, item in enumerate(value):
            found += check(item, f"{where}[{number}]")
        return found

    return of_list


def mapped(check: Check) -> Check:
    def of_values(value: Any, where: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{where}: is no object"]
        return [bad for name, item in value.items() for bad in check(item, f"{where}.{name}")]

    return of_values


def shaped(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object: what it must have, what it may have, and nothing else but `properties`."""
    known = {**required, **(optional or {}), "properties": bag}

    def of_object(value: Any, where: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{where}: is no object"]
        found = [f"{where}: lacks {name}" for name in required if name not in value]
        for name, item in value.items():
            if name not in known:
                found.append(f"{where}: {name} is no property of it")
            else:
                found += known[name](item, f"{where}.{name}")
        return found

    return of_object


def bag(value: Any, where: str) -> list[str]:
    """3.8: a property bag is an object; its tags, if any, are distinct strings."""
    if not isinstance(value, dict):
        return [f"{where}: is no property bag"]
    return listed(text, unique=True)(value.get("tags", []), f"{where}.tags")


# 3.11: a message has text, or an id to look it up by; ours has text.
message = shaped({"text": filled}, {"markdown": filled})
# 3.12: a multiformatMessageString has text.
multiformat = shaped({"text": filled}, {"markdown": filled})
# 3.4: an artifactLocation has a uri or an index; a uriBaseId only beside a relative uri.
_artifact = shaped({"uri": uri}, {"uriBaseId": filled})


def artifact(value: Any, where: str) -> list[str]:
    found = _artifact(value, where)
    if not found and "uriBaseId" in value and urlsplit(value["uri"]).scheme:
        found.append(f"{where}: has a uriBaseId beside an absolute uri (3.4.4)")
    if not found and "uriBaseId" in value and value["uri"].startswith("/"):
        found.append(f"{where}: a uri below a uriBaseId starts with a slash (3.4.4)")
    return found


# 3.30.5: lines count from 1. 3.29: a physicalLocation has an artifactLocation or an address.
region = shaped({"startLine": whole(1)})
physical = shaped({"artifactLocation": artifact}, {"region": region})
location = shaped({"physicalLocation": physical})
# 3.50: the configuration of a rule; 3.49: the rule itself, whose id is required.
configuration = shaped({}, {"level": one_of(*LEVELS), "enabled": flag})
rule = shaped(
    {"id": filled},
    {
        "name": filled,
        "shortDescription": multiformat,
        "fullDescription": multiformat,
        "help": multiformat,
        "helpUri": uri,
        "defaultConfiguration": configuration,
    },
)
# 3.19: a toolComponent has a name; 3.18: a tool has a driver.
driver = shaped(
    {"name": filled}, {"semanticVersion": filled, "version": filled, "rules": listed(rule)}
)
tool = shaped({"driver": driver})
# 3.58: a notification has a message; 3.20: an invocation says whether it succeeded.
notification = shaped({"message": message}, {"level": one_of(*LEVELS)})
invocation = shaped(
    {"executionSuccessful": flag},
    {"toolExecutionNotifications": listed(notification), "exitCode": whole(0)},
)
# 3.27: a result has a message.
result = shaped(
    {"message": message},
    {
        "ruleId": filled,
        "ruleIndex": whole(0),
        "level": one_of(*LEVELS),
        "locations": listed(location),
        "partialFingerprints": mapped(filled),
    },
)
# 3.14: a run has a tool.
run = shaped(
    {"tool": tool},
    {
        "columnKind": one_of("utf16CodeUnits", "unicodeCodePoints"),
        "invocations": listed(invocation),
        "results": listed(result),
        "originalUriBaseIds": mapped(shaped({}, {"uri": uri, "description": message})),
    },
)
# 3.13: a log has a version and runs.
log = shaped({"version": one_of("2.1.0"), "runs": listed(run)}, {"$schema": uri})


def wrong(value: Any) -> list[str]:
    """Everything in which a SARIF log does not keep to the standard; nothing when it is right."""
    found = log(value, "$")
    if found:
        return found
    for number, made in enumerate(value["runs"]):
        rules = made["tool"]["driver"].get("rules", [])
        ids = [each["id"] for each in rules]
        if len(set(ids)) < len(ids):
            found.append(f"$.runs[{number}]: a rule id stands twice")
        for place, each in enumerate(made.get("results", [])):
            where = f"$.runs[{number}].results[{place}]"
            # 3.27.6: an index leads to the rule whose id the result has.
            at = each.get("ruleIndex")
            if at is not None and (at >= len(ids) or ids[at] != each.get("ruleId", ids[at])):
                found.append(f"{where}: ruleIndex and ruleId are of two rules (3.27.5)")
            said = each["message"]["text"]
            # 3.11.5: braces stand twice but in placeholders, of which ours have none.
            if re.search(r"[{}]", re.sub(r"\{\{|\}\}", "", said)):
                found.append(f"{where}: its message holds a single brace (3.11.5)")
            # 3.11.6: text in brackets before text in parentheses is a link, unless escaped.
            if re.search(r"(?<!\\)\]\(", said):
                found.append(f"{where}: its message holds a link (3.11.6)")
    return found
