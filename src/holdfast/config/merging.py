"""How a partial policy lies over another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.config.file_models import DrillSection, LogSection, PolicySection, TierSection
from holdfast.model.policy import Policy


def merged_policy(base: Policy, section: PolicySection | None) -> Policy:
    """Return ``base`` with everything that the section sets put over it, key by key."""
    if section is None:
        return base
    changes: dict[str, Any] = {}
    for name in section.model_fields_set:
        value = getattr(section, name)
        if isinstance(value, TierSection | LogSection | DrillSection):
            value = replace(getattr(base, name), **{key: getattr(value, key) for key in value.model_fields_set})
        changes[name] = value
    return replace(base, **changes)
