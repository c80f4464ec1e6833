"""`voidvm doctor`: says whether this host can run VMs, and what to do if not."""

from __future__ import annotations

import msgspec

from voidvm.cli.failures import Exit
from voidvm.cli.options import AsJson, ConfigFile
from voidvm.cli.output import note, print_json, print_table
from voidvm.cli.owner import become_owner
from voidvm.cli.serve import load_settings


def doctor(config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check whether this host can run VMs; exit status 1 when something must be mended.

    The accelerators are tried with a tiny guest. Nothing is changed, and a running service is
    not disturbed.
    """
    settings = load_settings(config)
    # As the service would see it.
    become_owner(settings.data_dir)
    import asyncio  # noqa: PLC0415 - 30 ms

    from voidvm.services.checkup import checkup  # noqa: PLC0415 - 0.2 s

    findings = asyncio.run(checkup(settings))
    verdicts = [finding.verdict for finding in findings]
    worst = next((one for one in ("fail", "warn") if one in verdicts), "ok")
    if as_json:
        print_json({"verdict": worst, "checks": msgspec.to_builtins(findings)})
    else:
        rows: list[tuple[str, str, str]] = []
        for finding in findings:
            rows.append((finding.verdict, finding.name, finding.detail))
            if finding.advice:
                rows.append(("", "", f"→ {finding.advice}"))
        print_table(("", "CHECK", "FOUND"), rows)
        note(_summary(verdicts.count("fail"), verdicts.count("warn")))
    return Exit.FAILED if worst == "fail" else Exit.OK


def _summary(failures: int, warnings: int) -> str:
    parts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((failures, "failure"), (warnings, "warning"))
        if count
    ]
    if failures:
        return f"{' and '.join(parts)}: mend the failures first."
    return f"VMs can run here{f', with {parts[0]}' if parts else ''}."
