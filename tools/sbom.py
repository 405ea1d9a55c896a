#!/usr/bin/env python3
"""Writes what a built program is made of, as CycloneDX 1.5 (https://cyclonedx.org).

    tools/sbom.py BUILD_DIR PROGRAM > sbom.json

Found, not listed: the shared libraries that the program loads (ldd), and the headers that its objects were compiled
from (ninja's record), each with the Debian package that it is of. The same program gives the same bytes.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent


def output_of(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, capture_output=True, text=True).stdout


def shared_libraries(program):
    found = re.findall(r"(/\S+) \(0x", output_of("ldd", program))
    return {str(pathlib.Path(path).resolve()) for path in found}


def headers(build, program):
    """Of the objects, and what they precompile, that ninja makes the program of, those that lie outside of the sources."""
    inputs = output_of("ninja", "-C", build, "-t", "inputs", program).split("\n")
    objects = {line for line in inputs if line.endswith((".o", ".gch"))}
    found, wanted = set(), False
    for line in output_of("ninja", "-C", build, "-t", "deps").split("\n"):
        if line[:1].strip():
            wanted = line.split(":")[0] in objects
        elif wanted and line.strip():
            found.add(str((build / line.strip()).resolve()))
    return {path for path in found if not path.startswith((str(ROOT), str(build.resolve())))}


def packages_of(files):
    """Debian package -> its version, source and architecture; of the files that are of none, their names."""
    names, missing = set(), set(files)
    files = sorted(files)
    for start in range(0, len(files), 500):
        # Paths of before /usr was merged are those that packages know.
        asked = [alias for path in files[start:start + 500] for alias in (path, path.removeprefix("/usr"))]
        for line in output_of("dpkg-query", "-S", *asked, check=False).split("\n"):
            owner, _, path = line.partition(": ")
            if path:
                names.add(owner.split(",")[0])
                missing -= {path, "/usr" + path}
    pattern = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${Homepage}\n"
    lines = output_of("dpkg-query", "-W", "-f", pattern, *sorted(names)).strip().split("\n") if names else []
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}, missing


def component(name, facts, kind):
    version, architecture, source, homepage = facts
    purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "required",
             "properties": [{"name": "dmc:used-as", "value": kind}, {"name": "debian:source", "value": source}]}  # fmt: skip
    if homepage:
        entry["externalReferences"] = [{"type": "website", "url": homepage}]
    return entry


def bill(build, program):
    path = build / program
    loaded, unknown = packages_of(shared_libraries(path))
    compiled, unknown_headers = packages_of(headers(build, program))
    parts = [component(name, facts, "shared library") for name, facts in sorted(loaded.items())]
    parts += [component(name, facts, "headers") for name, facts in sorted(compiled.items()) if name not in loaded]
    for name in sorted(unknown | unknown_headers):
        parts.append({"type": "file", "bom-ref": name, "name": name})
    version = output_of(path, "--version").split()[-1]
    own = {"type": "application", "bom-ref": f"dmc@{version}", "name": path.name, "version": version,
           "licenses": [{"license": {"id": "Apache-2.0"}}],
           "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]}  # fmt: skip
    needs = [{"ref": own["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}]
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([own, parts], sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{number}", "version": 1,
            "metadata": {"component": own}, "components": parts, "dependencies": needs}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, help="where it was built with ninja")
    parser.add_argument("program", help="as ninja names it: bin/dmc")
    options = parser.parse_args()
    json.dump(bill(options.build, options.program), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
