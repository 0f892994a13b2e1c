"""The layer groups that a round trained, in words."""

from collections.abc import Sequence

from fedbench.records.schema import RoundRecord

LONGEST_LIST = 32
"""Letters of a list of names; where it would be longer, the groups are counted."""


def numbered(group_names: Sequence[str]) -> str:
    """The names of layer groups with their numbers, as `rounds.parquet` and MLflow's metric `schedule/group` count.

    >>> numbered(["stem", "fc"])
    '0: stem, 1: fc'
    """
    return ", ".join(f"{group}: {name}" for group, name in enumerate(group_names))


def is_full(record: RoundRecord) -> bool:
    """Whether every update of the round trained all layer groups, as far as it is recorded."""
    counts = record.group_clients
    if counts is None or not any(counts):
        return record.phase != "partial" and record.group < 0
    if record.phase != "async":
        return record.phase == "full"
    # Updates of single groups, however evenly spread, are at most half of all in each group.
    return len(counts) == 1 or (
        min(counts) == max(counts) and 2 * max(counts) > record.clients - record.rejected_clients
    )


def in_words(record: RoundRecord, group_names: Sequence[str]) -> str:
    """The layer groups that the round trained: their names, or how many of them.

    Args:
        record: the round.
        group_names: names of the model's layer groups, shallow to deep; may be empty where they are not known.
    """
    counts = record.group_clients
    if counts is None or len(counts) != len(group_names):
        trained = [record.group] if record.group >= 0 else []
    else:
        trained = [group for group, count in enumerate(counts) if count]
    names = [group_names[group] if group < len(group_names) else f"group {group + 1}" for group in trained]
    if not names:
        return "several groups"
    listed = ", ".join(names)
    if len(names) == 1 or (len(names) < len(group_names) and len(listed) <= LONGEST_LIST):
        return listed
    return f"{len(names)} of {len(group_names)} groups"
