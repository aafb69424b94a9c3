"""Fills `inbox/` with real documents: readmes, change logs and licences of crates that Selvedge itself is built from.

They come from the archives that cargo has fetched for the build, at the versions of `Cargo.lock`; nothing is downloaded.
"""
import glob, os, re, sys, tarfile

CRATES = ["tokio", "serde", "serde_json", "fjall", "lsm-tree", "jiff", "hyper", "clap", "blake3", "rustls", "proptest", "bytes", "indicatif", "rustix"]
WANTED = re.compile(r"(?i)^(readme|changelog|licen[cs]e|copying|unlicense|security|contributing|design|platform|compare)[^/]*$")


def fill(lock, inbox):
    """Gives the names of the files."""
    with open(lock, encoding="utf-8") as file:
        versions = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', file.read()))
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    os.makedirs(inbox, exist_ok=True)
    for crate in CRATES:
        name = "%s-%s" % (crate, versions[crate])
        archives = glob.glob(os.path.join(home, "registry/cache/*", name + ".crate"))
        if not archives:
            sys.exit("the archive of %s is not in %s: `cargo fetch` brings it" % (name, home))
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                folder, _, file = member.name.partition("/")
                if folder == name and member.isfile() and WANTED.match(file):
                    with open(os.path.join(inbox, "%s.%s" % (crate, file)), "wb") as out:
                        out.write(archive.extractfile(member).read())
    return sorted(os.listdir(inbox))


if __name__ == "__main__":
    print("\n".join(fill(*sys.argv[1:])))
