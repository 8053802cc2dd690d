"""What a verification says about a file: findings, and the report of all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
Verdict = Literal["good", "no or poor head", "damaged"]

SOUND, POOR_HEAD, DAMAGED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about a file that its user should know.

    Args:
        severity: "error": it cannot be used as it is. "warning": it works worse than it could. "note": good to know.
        about: "file": the finding concerns the whole file; "head": only speculation.
        code: A short name that does not change, for programs.
        message: What is so.
        advice: What to do about it.
    """

    severity: Severity
    about: Literal["file", "head"]
    code: str
    message: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that was found in a file.

    Args:
        path: The file that was asked about.
        files: It, or all parts of a model in parts; empty when the first could not be read.
        head: State of the draft head, see `nextn.gguf.heads.HeadCheck`; None when the file could not be read.
        findings: The worst first.
    """

    path: str
    files: tuple[str, ...]
    head: str | None
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0: sound, with a good head; 1: sound, with no head or a poor one; 2: damaged."""
        if any(finding.severity == "error" and finding.about == "file" for finding in self.findings):
            return DAMAGED
        poor = any(finding.severity != "note" and finding.about == "head" for finding in self.findings)
        return POOR_HEAD if poor or self.head != "complete" else SOUND

    @property
    def verdict(self) -> Verdict:
        """The exit code in words."""
        verdicts: tuple[Verdict, ...] = ("good", "no or poor head", "damaged")
        return verdicts[self.exit_code]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "verdict": self.verdict, "exit_code": self.exit_code}


def damage(code: str, message: str, advice: str = "download or convert the file again") -> Finding:
    """A finding that the file cannot be loaded."""
    return Finding(severity="error", about="file", code=code, message=message, advice=advice)


def format_report(report: Report) -> str:
    """The report as lines for people, without a final newline; names from the file are escaped already."""
    lines = [f"{ascii(report.path)[1:-1]}: {report.verdict}"]
    for finding in report.findings:
        lines += [f"  {finding.severity}: {finding.message} [{finding.code}]", f"    {finding.advice}"]
    return "\n".join(lines)
