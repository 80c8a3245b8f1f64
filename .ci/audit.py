"""make audit: known vulnerabilities of what is installed, asked of pip-audit in an environment of its own.

Exit code 1 for findings. Where pip-audit cannot be installed, or no service that knows vulnerabilities can be reached,
one line says so and the exit code is 0: nothing was found out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

SERVICES = ("osv", "pypi")
TRIED = "pip==24.0\n"  # one package, to see whether a service answers before all are asked for


def main() -> int:
    tool = _installed(Path(sys.prefix) / "audit")
    if isinstance(tool, str):
        return _say(f"audit: not done, pip-audit cannot be installed here ({tool})")
    reasons = []
    for service in SERVICES:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "one.txt").write_text(TRIED, encoding="utf-8")
            tried = _audit(tool, service, "--requirement", f"{folder}/one.txt", "--no-deps", "--disable-pip")
        if isinstance(tried, str) or _known(tried) == 0:
            reasons.append(f"{service}: {tried if isinstance(tried, str) else 'does not know packages'}")
            continue
        found = _audit(tool, service, "--path", sysconfig.get_path("purelib"))
        if isinstance(found, str):
            reasons.append(f"{service}: {found}")
            continue
        findings = [(package, each) for package in found for each in package.get("vulns", ())]
        for package, each in findings:
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            _say(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
        unknown = [package["name"] for package in found if "skip_reason" in package]
        _say(
            f"audit: {len(found) - len(unknown)} packages, {len(findings)} known vulnerabilities; "
            f"not known to {service}: {', '.join(unknown) or 'none'}"
        )
        return 1 if findings else 0
    return _say(f"audit: not done, no service that knows vulnerabilities can be reached here ({'; '.join(reasons)})")


def _installed(folder: Path) -> Path | str:
    """pip-audit in an environment of its own, or why not."""
    tool = folder / ("Scripts" if sys.platform == "win32" else "bin") / "pip-audit"
    if not tool.exists():
        venv.create(folder, with_pip=True)
        command = [str(tool.parent / "python"), "-m", "pip", "install", "--quiet", "pip-audit>=2.9,<3"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return _last(done.stderr)
    return tool


def _audit(tool: Path, service: str, *what: str) -> list[dict[str, Any]] | str:
    """What pip-audit says of each package, or why it says nothing: it has one exit code for that and for findings."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit.json"
        options = [
            "--vulnerability-service",
            service,
            "--format",
            "json",
            "--output",
            str(out),
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run([str(tool), *what, *options, "--timeout", "15"], capture_output=True, text=True)
        if not out.exists():
            return _last(done.stderr)
        return json.loads(out.read_text(encoding="utf-8"))["dependencies"]


def _known(packages: list[dict[str, Any]]) -> int:
    return sum("skip_reason" not in package for package in packages)


def _last(text: str) -> str:
    """What went wrong, without the addresses of a machine's own index: of a traceback no more than the error's name."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "://" not in line]
    last = lines[-1] if lines else "no reason given"
    return last.split(":")[0].split(".")[-1] if "Traceback" in text else last[:200]


def _say(line: str) -> int:
    sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
