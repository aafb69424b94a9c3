"""Which licences a text is: recognised by phrases that stand in one licence and in no other.

A text is reduced to its words in lower case first, so that line breaks, punctuation, comment signs, markup and names of
authors make no difference. Every phrase below is written in that form. What is recognised is the wording, not who may use
it: a text of the GPL says its version, and not whether later ones are allowed.
"""
import re

# id -> (phrases that all stand in it, phrases of which none does)
TEXTS = {
    "0BSD": (["permission to use copy modify and or distribute this software for any purpose with or without fee is hereby granted"],
             ["provided that the above copyright notice and this permission notice appear in all copies"]),
    "AGPL-3.0": (["gnu affero general public license version 3 19 november 2007"], []),
    "Apache-2.0": (["apache license version 2 0", "each contributor hereby grants to you a perpetual"], []),
    "Apache-2.0 (notice)": (["licensed under the apache license version 2 0 the license you may not use", "see the license for the specific language governing permissions"], []),
    "Artistic-2.0": (["the artistic license 2 0", "this license establishes the terms under which a given free software package may be copied"], []),
    "BSD-2-Clause": (["redistribution and use in source and binary forms with or without modification are permitted provided that the following conditions are met",
                      "redistributions in binary form must reproduce"],
                     ["used to endorse or promote products", "all advertising materials mentioning features"]),
    "BSD-3-Clause": (["redistribution and use in source and binary forms with or without modification are permitted provided that the following conditions are met",
                      "used to endorse or promote products"],
                     ["all advertising materials mentioning features"]),
    "BSD-4-Clause": (["redistribution and use in source and binary forms with or without modification are permitted provided that the following conditions are met",
                      "all advertising materials mentioning features"], []),
    "BSL-1.0": (["boost software license version 1 0", "permission is hereby granted free of charge to any person or organization obtaining a copy of the software and accompanying documentation covered by this license"], []),
    "CC-BY-4.0": (["creative commons attribution 4 0 international public license"], []),
    "CC0-1.0": (["cc0 1 0 universal", "statement of purpose"], []),
    "CDDL-1.0": (["common development and distribution license cddl version 1 0"], []),
    "CDLA-Permissive-2.0": (["community data license agreement permissive version 2 0"], []),
    "EPL-2.0": (["eclipse public license v 2 0", "this program constitutes recipient s acceptance of this agreement"], []),
    "GPL-2.0": (["gnu general public license version 2 june 1991"], []),
    "GPL-3.0": (["gnu general public license version 3 29 june 2007"], []),
    "ISC": (["distribute this software for any purpose with or without fee is hereby granted provided that the above copyright notice and this permission notice appear in all copies"], []),
    "LGPL-2.1": (["gnu lesser general public license version 2 1 february 1999"], []),
    "LGPL-3.0": (["gnu lesser general public license version 3 29 june 2007"], []),
    "LLVM-exception": (["llvm exceptions to the apache 2 0 license"], []),
    "MIT": (["permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation files",
             "the above copyright notice and this permission notice shall be included in all copies or substantial portions of the software"], []),
    "MIT-0": (["permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation files",
               "and to permit persons to whom the software is furnished to do so the software is provided as is"],
              ["the above copyright notice and this permission notice"]),
    "MPL-2.0": (["mozilla public license version 2 0", "contributor means each individual or legal entity that creates"], []),
    "NCSA": (["permission is hereby granted free of charge to any person obtaining a copy of this software and associated documentation files",
              "redistributions of source code must retain the above copyright notice this list of conditions and the following disclaimers"], []),
    "OpenSSL": (["this product includes software developed by the openssl project"], []),
    "Python-2.0": (["python software foundation license version 2"], []),
    "Unicode-3.0": (["unicode license v3", "permission is hereby granted free of charge to any person obtaining a copy of data files and any associated documentation"], []),
    "Unicode-DFS-2016": (["unicode inc license agreement data files and software"], []),
    "Unlicense": (["this is free and unencumbered software released into the public domain"], []),
    "WTFPL": (["do what the fuck you want to public license"], []),
    "Zlib": (["altered source versions must be plainly marked as such and must not be misrepresented"], []),
}

# Files that should carry a licence, and others that sometimes do.
EXPECTED = re.compile(r"^((un)?licen[cs]es?|copying|copyright|notice|mit|apache|bsl|bsd|zlib)([-_.].*)?$", re.I)
POSSIBLE = re.compile(r"^(authors|readme)([-_.].*)?$", re.I)
PROGRAM = re.compile(r"\.(rs|toml|json|py|sh|c|h|js|html|yml|yaml)$", re.I)


def is_licence_file(path):
    """Whether a file of an archive should carry a licence, by its name or its folder (`LICENSES/MIT.txt`)."""
    *folders, name = path.split("/")
    in_folder = any(re.match(r"^\.?licen[cs]es?$", folder, re.I) for folder in folders)
    return not PROGRAM.search(name) and (in_folder or bool(EXPECTED.match(name)))


def may_be_licence_file(path):
    """Whether a file at the top of an archive may carry one: it counts only if something is recognised in it."""
    return "/" not in path and bool(POSSIBLE.match(path))


def words(text):
    """The words of a text, in lower case, one blank between two."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def recognise(text):
    """The ids of the licences whose wording stands in the text, sorted."""
    plain = words(text)
    found = (name for name, (there, absent) in TEXTS.items()
             if all(phrase in plain for phrase in there) and not any(phrase in plain for phrase in absent))
    return sorted({name.split(" ")[0] for name in found})


def known():
    """Every id that can be recognised."""
    return {name.split(" ")[0] for name in TEXTS}
