"""Files into pages. A page ends before a heading, and has at most so many characters; its id is the file and its number."""
import glob, re

import effects
from selvedge import Terminal, activity, run

PAGE_CHARACTERS = 4000


def read(file):
    with open(file, encoding="utf-8", errors="replace") as text:
        return text.read()


def pages(file):
    """The pages of a file, in order: the same each time, so that an id leads back to its text."""
    found, page = [], ""
    for part in re.split(r"(?m)^(?=#{1,2} )", read(file)):
        while len(part) > PAGE_CHARACTERS:
            cut = part.rfind("\n", 0, PAGE_CHARACTERS) + 1 or PAGE_CHARACTERS
            found, page, part = found + [page, part[:cut]], "", part[cut:]
        if len(page) + len(part) > PAGE_CHARACTERS:
            found, page = found + [page], ""
        page += part
    return [{"id": "%s#%d" % (file, number), "text": text} for number, text in enumerate(filter(str.strip, found + [page]), 1)]


def page(id):
    """The text of a page, by its id."""
    file = id.rpartition("#")[0]
    return next(each["text"] for each in pages(file) if each["id"] == id)


@activity("split")
def split(input, attempt):
    files = sorted(glob.glob(input["file"]))
    if not files:
        raise Terminal("no_file", "there is no file %s" % input["file"])
    found = [each for file in files for each in pages(file)]
    effects.append(attempt, input["file"])
    return {"files": len(files), "pages": found}


if __name__ == "__main__":
    run()
