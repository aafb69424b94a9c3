"""Lists the crates of a Cargo workspace that come from a registry, with their archives and checksums."""
import json, os, re, shutil, subprocess

from selvedge import Retryable, Terminal, activity, run

import effects


def cargo(*arguments):
    """Runs cargo; gives (exit status, standard output, the end of standard error)."""
    program = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    environment = dict(os.environ)
    # Some images keep the toolchain beside the programs instead of in HOME (`/usr/local/cargo/bin/cargo`).
    home = os.path.dirname(os.path.dirname(os.path.abspath(program)))
    rustup = os.path.join(os.path.dirname(home), "rustup")
    if os.path.basename(home) == "cargo" and os.path.isdir(rustup):
        environment.update(CARGO_HOME=home, RUSTUP_HOME=rustup)
    try:
        done = subprocess.run([program, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise Terminal("no_cargo", "cargo is not on PATH: install Rust from https://rustup.rs")
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")[-2000:]


def checksums(lock):
    """(name, version) -> SHA-256, from the text of a Cargo.lock."""
    found = {}
    for block in lock.split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', block, re.M))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


@activity("list_crates")
def list_crates(input, attempt):
    manifest = os.path.abspath(input["manifest"])
    if not os.path.isfile(manifest):
        raise Terminal("no_manifest", "%s does not exist: give the path of a Cargo.toml" % manifest)
    metadata = ["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest]
    status, text, _ = cargo(*metadata, "--offline")
    if status != 0:
        print("some archives are missing here, cargo fetches them")
        status, _, said = cargo("fetch", "--locked", "--manifest-path", manifest)
        if status != 0:
            raise Retryable("cargo_fetch", said)
        status, text, said = cargo(*metadata, "--offline")
        if status != 0:
            raise Retryable("cargo_metadata", said)
    metadata = json.loads(text)
    with open(os.path.join(metadata["workspace_root"], "Cargo.lock"), encoding="utf-8") as file:
        expected = checksums(file.read())
    crates = []
    for package in metadata["packages"]:
        if not (package["source"] or "").startswith("registry+"):
            continue
        # …/registry/src/INDEX/NAME-VERSION/Cargo.toml was unpacked from …/registry/cache/INDEX/NAME-VERSION.crate
        folder, unpacked = os.path.split(os.path.dirname(package["manifest_path"]))
        source, index = os.path.split(folder)
        archive = os.path.join(os.path.dirname(source), "cache", index, unpacked + ".crate")
        name, version = package["name"], package["version"]
        crates.append({"name": name, "version": version, "licence": package["license"],
                       "checksum": expected.get((name, version)), "archive": archive})
    crates.sort(key=lambda crate: (crate["name"], crate["version"]))
    effects.append(input["out"], attempt, "%d_crates" % len(crates))
    return crates


if __name__ == "__main__":
    run()
