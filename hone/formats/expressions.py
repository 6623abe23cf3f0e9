"""Arithmetic in text: what a file gives to `eval` must be numbers, names, known functions, and nothing else."""

from __future__ import annotations

import ast
import re

from hone.names import shown

FUNCTIONS = frozenset(
    {
        "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Equality", "Eq", "ExprCondPair", "Float", "FloatPow",
        "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer",
        "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing",
        "Mul", "Ne", "Not", "Or", "Piecewise", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundDecimal",
        "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt", "Tuple",
        "Unequality", "Where", "ceiling", "exp", "floor", "log", "sqrt",
    }
)  # fmt: skip
GUARD_FUNCTIONS = FUNCTIONS | {"max", "min", "abs"}
METHODS = frozenset({"size", "stride", "storage_offset", "dim"})
LONGEST = 20_000
_TEXT = re.compile(r"[\w.+-]*")
_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
    ast.expr_context, ast.Tuple, ast.keyword,
)  # fmt: skip


def check_size(text: str) -> str:
    """Return why a text is no expression of sizes as torch writes them (sympy's, or plain), or an empty string."""
    return _check(text, guard=False)


def check_guard(text: str) -> str:
    """As `check_size`, for a condition on sizes of inputs, such as `L['x'].size()[0] == 4`."""
    return _check(text, guard=True)


def _check(text: str, *, guard: bool) -> str:
    if len(text) > LONGEST:
        return "an expression that is too long to be one of sizes"
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return f"no expression: {shown(text)}"
    for node in ast.walk(tree):
        if not _is_allowed(node, guard=guard):
            return f"no expression of sizes: {shown(text)}"
    return ""


def _is_allowed(node: ast.AST, *, guard: bool) -> bool:
    if isinstance(node, ast.Constant):
        value = node.value
        return isinstance(value, int | float) or (isinstance(value, str) and _is_word(value))
    if isinstance(node, ast.Name):
        return "__" not in node.id
    if isinstance(node, ast.Call):
        return _is_known_call(node.func, GUARD_FUNCTIONS if guard else FUNCTIONS, guard=guard)
    if isinstance(node, ast.Attribute):
        return guard and node.attr in METHODS
    if isinstance(node, ast.Subscript):
        return guard
    return isinstance(node, _NODES)


def _is_word(text: str) -> bool:
    """True for names and numbers: sympy evaluates texts within texts, too."""
    return _TEXT.fullmatch(text) is not None and "__" not in text


def _is_known_call(function: ast.expr, known: frozenset[str], *, guard: bool) -> bool:
    if isinstance(function, ast.Name):
        return function.id in known
    return guard and isinstance(function, ast.Attribute) and function.attr in METHODS
