"""Results as JSON: the keys are a contract (docs/reference/commands.md); more may come, none is renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.interfaces.cli.failures import error_view
from holdfast.model.documents import JsonObject, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.application.results import (
        BackupOutcome,
        BackupSummary,
        EntryView,
        ReachedPoint,
        RestoreOutcome,
        RestorePlan,
        SlotView,
        TopicFindings,
    )
    from holdfast.repository.checking import AreaReport


def backup_view(backup: BackupSummary) -> JsonObject:
    """Return a backup as ``backups --json`` lists it."""
    return {
        "id": backup.id,
        "source": backup.source,
        "kind": backup.kind,
        "tier": backup.tier,
        "form": backup.form,
        "started_at": format_time(backup.started_at),
        "ended_at": format_time(backup.ended_at),
        "size_bytes": backup.size_bytes,
        "stored_bytes": backup.stored_bytes,
        "verified": backup.verified,
        "held": backup.held,
        "expires_at": format_time(backup.expires_at) if backup.expires_at is not None else None,
        "position": backup.position,
        "damaged": backup.damaged,
        "parent": backup.parent,
    }


def outcome_view(outcome: BackupOutcome) -> JsonObject:
    """Return the last line about a source of ``backup --json``."""
    backup = backup_view(outcome.summary) if outcome.summary is not None else {"id": None}
    return {
        "event": "backup",
        **backup,
        "source": outcome.source,
        "notices": list(outcome.notices),
        "damage": [{"path": path, "count": count, "detail": detail} for path, count, detail in outcome.damage],
        "duration_seconds": round(outcome.duration_seconds, 3),
        "error": error_view(outcome.error) if outcome.error is not None else None,
    }


def plan_view(plan: RestorePlan, repository: str) -> JsonObject:
    """Return what ``restore --json`` prints before it begins."""
    return {
        "event": "plan",
        "source": plan.source,
        "backup": backup_view(plan.backup),
        "repository": repository,
        "target": str(plan.target),
        "delta": plan.delta,
        "point": point_view(plan.point),
        "tablespaces": [{"from": old, "to": str(new)} for old, new in plan.places],
    }


def point_view(point: ReachedPoint | None) -> JsonObject | None:
    """Return the point in time that a restore reaches, None where it is a backup as it was."""
    if point is None:
        return None
    return {
        "asked": point.asked,
        "at": format_time(point.at) if point.at is not None else None,
        "position": point.position,
        "inclusive": point.is_inclusive,
        "timeline": point.timeline,
        "transaction_at": format_time(point.transaction_at) if point.transaction_at is not None else None,
        "transaction_xid": point.transaction_xid,
        "log_bytes": point.log_bytes,
        "notes": list(point.notes),
    }


def restored_view(outcome: RestoreOutcome, notes: Sequence[str], start: str | None) -> JsonObject:
    """Return the last line about a source of ``restore --json``."""
    plan = outcome.plan
    return {
        "event": "restore",
        "source": plan.source,
        "id": plan.backup.id,
        "point": point_view(plan.point),
        "target": str(plan.target),
        "tablespaces": [{"from": old, "to": str(new)} for old, new in plan.places],
        "files": outcome.files,
        "size_bytes": outcome.size_bytes,
        "written_bytes": outcome.written_bytes,
        "kept_bytes": outcome.kept_bytes,
        "removed": outcome.removed,
        "duration_seconds": round(outcome.duration_seconds, 3),
        "start": start,
        "notes": list(notes),
        "error": None,
    }


def check_view(reports: Sequence[AreaReport], read_percent: float | None) -> JsonObject:
    """Return the report of ``check --json``."""
    return {
        "event": "check",
        "sound": not any(report.findings for report in reports),
        "read_percent": read_percent,
        "areas": [
            {
                "title": report.title,
                "backups": report.backups,
                "packs": report.packs,
                "stored_bytes": report.stored_bytes,
                "read_bytes": report.read_bytes,
                "index_rebuilt": report.index_rebuilt,
                "findings": [
                    {"subject": finding.subject, "message": finding.message, "backups": list(finding.backups)}
                    for finding in report.findings
                ],
            }
            for report in reports
        ],
        "touched": [backup for report in reports for backup in report.touched],
    }


def entry_view(entry: EntryView) -> JsonObject:
    """Return an entry of a backup."""
    return {
        "path": entry.path,
        "type": entry.type,
        "mode": f"{entry.mode:04o}" if entry.mode is not None else None,
        "size_bytes": entry.size_bytes,
        "modified_at": entry.modified_at,
        "link": entry.link,
    }


def slot_view(slot: SlotView) -> JsonObject:
    """Return a key slot; nothing of it is secret."""
    return {
        "id": slot.id,
        "kind": slot.kind,
        "scope": slot.scope,
        "created_at": format_time(slot.created_at),
        "opens": slot.opens,
        "label": slot.label,
        "epochs": list(slot.epochs),
    }


def findings_view(topics: Sequence[TopicFindings]) -> JsonObject:
    """Return what ``doctor --json`` prints."""
    return {
        "broken": sum(finding.severity == "broken" for topic in topics for finding in topic.findings),
        "subjects": [
            {
                "subject": topic.subject,
                "findings": [
                    {
                        "topic": finding.topic,
                        "severity": finding.severity.value,
                        "message": finding.message,
                        "hint": finding.hint,
                    }
                    for finding in topic.findings
                ],
            }
            for topic in topics
        ],
    }
