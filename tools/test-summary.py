#!/usr/bin/env python3
"""Closes `make test`: counts what the logs of cargo and ctest report, and names what failed.

    tools/test-summary.py [cargo STATUS LOG] [ctest STATUS LOG]

STATUS is what the command ended with. Fails if that is not 0, if a log reports a failure, and also
if it reports no test that passed: a run that had nothing to run is no success.
"""

import re
import sys

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
RESULT = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


class Suite:
    """One line of the table."""

    def __init__(self, name):
        self.name, self.passed, self.failed, self.skipped = name, 0, 0, 0
        self.faults = []


def cargo(text):
    """A suite for each test binary, and for the tests in documentation."""
    suites, suite = [], None
    for line in text.splitlines():
        if match := re.match(r"\s+Running (?:unittests )?(\S+) \(|\s+Doc-tests (\S+)", line):
            suite = Suite(f"cargo {match.group(1) or 'documentation'}")
            suites.append(suite)
        elif match := RESULT.match(line):
            suite = suite or Suite("cargo")
            suite.passed, suite.failed, suite.skipped = map(int, match.groups())
        elif match := re.match(r"test (.+) \.\.\. FAILED", line):
            if suite is not None:
                suite.faults.append(f"{suite.name}: {match.group(1)}")
    return suites


def ctest(text):
    suite = Suite("ctest")
    total = re.search(r"tests passed, (\d+) tests? failed out of (\d+)", text)
    if total is None:
        return [suite]
    suite.failed = int(total.group(1))
    lists = {"FAILED": [], "did not run": []}
    for title, names in lists.items():
        if match := re.search(rf"^The following tests {title}:\n((?:\s+\d+ - .*\n?)+)", text, re.M):
            names += re.findall(r"\d+ - (.+\))", match.group(1))
    suite.faults = [f"ctest: {name}" for name in lists["FAILED"]]
    suite.skipped = len([name for name in lists["did not run"] if name not in lists["FAILED"]])
    suite.passed = int(total.group(2)) - suite.failed - suite.skipped
    return [suite]


READERS = {"cargo": cargo, "ctest": ctest}


def main():
    suites, broken, arguments = [], [], iter(sys.argv[1:])
    for kind, status, path in zip(arguments, arguments, arguments):
        with open(path, encoding="utf-8", errors="replace") as log:
            found = READERS[kind](ESCAPE.sub("", log.read()))
        suites += found
        if status != "0":
            broken.append(f"{kind} ended with status {status}: see {path}")
        if not any(suite.passed for suite in found):
            broken.append(f"{kind}: no test passed: see {path}")
    if not suites:
        sys.exit(__doc__)
    suites = [suite for suite in suites
              if suite.passed or suite.failed or suite.skipped or suite.faults]
    width = max((len(suite.name) for suite in suites), default=0)
    print(f"\n{'':{width}}  passed  failed  skipped")
    for suite in suites:
        print(f"{suite.name:{width}}  {suite.passed:6}  {suite.failed:6}  {suite.skipped:7}")
        broken += suite.faults
        if suite.failed and not suite.faults:
            broken.append(f"{suite.name}: {suite.failed} failed")
    passed, failed, skipped = (sum(getattr(suite, what) for suite in suites)
                               for what in ("passed", "failed", "skipped"))
    print(f"{'all':{width}}  {passed:6}  {failed:6}  {skipped:7}")
    for fault in dict.fromkeys(broken):
        print(f"  {fault}")
    print("tests FAILED" if broken else "tests passed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
