"""SPDX expressions as crates declare them: OR, AND, WITH, brackets, and the old `MIT/Apache-2.0`."""
import re


class Malformed(ValueError):
    """Text that is no expression."""


def parse(text):
    """("id", name, exception or None) | ("and" | "or", [parts])."""
    tokens = re.findall(r"[()/]|[A-Za-z0-9.+:-]+|\S", text)
    tree, rest = _either(tokens)
    if rest:
        raise Malformed("`%s` goes on with `%s`" % (text, rest[0]))
    return tree


def _either(tokens):
    return _list("or", ("OR", "/"), _both, tokens)


def _both(tokens):
    return _list("and", ("AND",), _one, tokens)


def _list(kind, signs, part, tokens):
    tree, tokens = part(tokens)
    parts = [tree]
    while tokens and tokens[0].upper() in signs:
        tree, tokens = part(tokens[1:])
        parts.append(tree)
    return (parts[0] if len(parts) == 1 else (kind, parts)), tokens


def _one(tokens):
    if tokens and tokens[0] == "(":
        tree, tokens = _either(tokens[1:])
        if not tokens or tokens[0] != ")":
            raise Malformed("a bracket is not closed")
        return tree, tokens[1:]
    if not tokens or not re.match(r"^[A-Za-z0-9]", tokens[0]) or tokens[0].upper() in ("OR", "AND", "WITH"):
        raise Malformed("a licence is missing before `%s`" % (tokens[0] if tokens else "the end"))
    if len(tokens) > 2 and tokens[1].upper() == "WITH":
        return ("id", tokens[0], tokens[2]), tokens[3:]
    return ("id", tokens[0], None), tokens[1:]


def written(tree):
    """The one way to write it: parts sorted, nested lists of a kind made one, brackets only where needed."""
    return _write(tree, "or")


def _write(tree, inside):
    if tree[0] == "id":
        return tree[1] if tree[2] is None else "%s WITH %s" % tree[1:]
    text = (" %s " % tree[0].upper()).join(sorted({_write(part, tree[0]) for part in _flat(tree)}))
    return "(%s)" % text if tree[0] == "or" and inside == "and" else text


def _flat(tree):
    for part in tree[1]:
        if part[0] == tree[0]:
            yield from _flat(part)
        else:
            yield part


def base(name):
    """The licence without what its text cannot tell: only this version, or later ones too."""
    return re.sub(r"(-only|-or-later|\+)$", "", name)


def names(tree):
    """Every licence and exception in it."""
    if tree[0] == "id":
        return {base(tree[1])} | ({tree[2]} if tree[2] else set())
    return set().union(*map(names, tree[1]))


def holds(tree, allowed):
    """Whether the expression can be met with these licences and exceptions alone."""
    if tree[0] == "id":
        return base(tree[1]) in allowed and (tree[2] is None or tree[2] in allowed)
    return (any if tree[0] == "or" else all)(holds(part, allowed) for part in tree[1])
