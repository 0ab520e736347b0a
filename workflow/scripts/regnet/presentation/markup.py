"""Text and tables for GitHub (Markdown) and for papers (LaTeX)."""

import math
from collections.abc import Iterable, Sequence


def markdown(text: str) -> str:
    """Plain text as Markdown inside a table: special characters escaped, a typographic prime in TRE'."""
    special = {character: f"\\{character}" for character in "\\`*_|<"} | {"'": "′"}
    return "".join(special.get(character, character) for character in text)


def latex(text: str) -> str:
    """Plain text as LaTeX: special characters escaped, symbols in math mode, dashes as ``--``."""
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "±": "$\\pm$",
        "≥": "$\\geq$",
        "≤": "$\\leq$",
        "−": "$-$",
        "†": "$^\\dagger$",
        "'": "$'$",
        "–": "--",
    }
    return "".join(special.get(character, character) for character in text)


def number(value: float, digits: int = 2) -> str:
    """A number as tables print it, with a typographic minus; a dash where it is missing."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def mean_and_sd(mean: float, sd: float) -> str:
    """``mean ± sd`` with two digits; the mean alone where the deviation is missing, a dash where both are."""
    return number(mean) if math.isnan(sd) else f"{number(mean)} ± {number(sd)}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table of cells in Markdown; the first `left` columns are aligned to the left, the others to the right."""
    lines = [header, ["---" if column < left else "---:" for column in range(len(header))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: int, *, caption: str, label: str, notes: str = ""
) -> str:
    """A whole LaTeX ``table`` of cells in LaTeX; the first `left` columns are aligned to the left, the others to the right.

    It needs ``\\usepackage{booktabs}``. An empty row becomes a rule; caption and notes are plain text.
    """
    lines = [" & ".join(row) + " \\\\" if row else "\\midrule" for row in rows]
    small = (
        [f"\\par\\smallskip\n\\begin{{minipage}}{{\\linewidth}}\\scriptsize {latex(notes)}\\end{{minipage}}"] if notes else []
    )
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{latex(caption)}}}",
            f"\\label{{{label}}}",
            "\\footnotesize",
            "\\setlength{\\tabcolsep}{3.5pt}",
            f"\\begin{{tabular}}{{@{{}}{'l' * left}{'r' * (len(header) - left)}@{{}}}}",
            "\\toprule",
            " & ".join(header) + " \\\\",
            "\\midrule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            *small,
            "\\end{table}",
            "",
        ]
    )
