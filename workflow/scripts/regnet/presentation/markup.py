"""Text and tables for GitHub (Markdown) and for papers (LaTeX)."""

import math
from collections.abc import Iterable, Sequence


def markdown(text: str) -> str:
    """Convert plain text to Markdown for a table cell: escape special characters, write TRE' with a typographic prime."""
    special = {character: f"\\{character}" for character in "\\`*_|<"} | {"'": "′"}
    return "".join(special.get(character, character) for character in text)


def latex(text: str) -> str:
    """Convert plain text to LaTeX: escape special characters, write symbols in math mode and dashes as ``--``."""
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
    """Format a number for a table, with a typographic minus; a dash if it is NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def mean_and_sd(mean: float, sd: float) -> str:
    """Format ``mean ± sd`` with two digits; the mean alone if the deviation is NaN, a dash if both are."""
    return number(mean) if math.isnan(sd) else f"{number(mean)} ± {number(sd)}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """Return a Markdown table of Markdown cells; the first `left` columns are left-aligned, the others right-aligned."""
    lines = [header, ["---" if column < left else "---:" for column in range(len(header))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: int, *, caption: str, label: str, notes: str = ""
) -> str:
    """Return a LaTeX ``table`` of LaTeX cells; the first `left` columns are left-aligned, the others right-aligned.

    It needs ``\\usepackage{booktabs}``. An empty row becomes a rule; caption and notes are plain text.
    """
    lines = [" & ".join(row) + " \\\\" if row else "\\midrule" for row in rows]
    footer = (
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
            *footer,
            "\\end{table}",
            "",
        ]
    )
