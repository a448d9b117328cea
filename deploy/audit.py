"""Looks the locked dependencies up for known vulnerabilities. Without the network it says so, and fails nobody."""

import json
import subprocess
import sys


def main() -> int:
    """Return 1 if a dependency has a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements.lock", "--require-hashes"]
    found = subprocess.run(
        [*command, "--disable-pip", "--format", "json", "--progress-spinner", "off"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        dependencies = json.loads(found.stdout)["dependencies"]
    except ValueError:
        reason = found.stderr.strip().splitlines()[-1:] or ["no output"]
        print(f"not audited: {reason[0][:200]}")
        return 0
    vulnerable = [each for each in dependencies if each.get("vulns")]
    for each in vulnerable:
        for fault in each["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no release yet"
            print(f"{each['name']} {each['version']}: {fault['id']}, mended in {fixed}")
    print(f"{len(dependencies)} dependencies, {len(vulnerable)} with known vulnerabilities")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
