"""Table 2.1 of the chapter: our numbers beside those of the chapter."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from regnet.conventions import AXES
from regnet.evaluation.long_tables import method_name
from regnet.evaluation.summaries import FEW, summarize, zero_field_mae
from regnet.presentation.markup import latex, latex_table, markdown, markdown_table, mean_and_sd, number
from regnet.system.files import whole_file

THIS_PROJECT = ("regnet_pyramid", "regnet_refined")
"""The methods with which this project goes beyond the chapter, by their names in its configs."""

MEASURES = ("measure", *AXES)
"""The columns of the chapter's table: MAE or TRE, and its component along each axis."""

_CHAPTER = """
    MAE  regnet_1scale validation 1.70 1.81 0.56 0.78 0.53 0.71 0.61 0.88 -
    MAE  regnet_early  validation 1.26 1.22 0.41 0.51 0.39 0.48 0.45 0.60 -
    MAE  regnet        validation 1.17 1.10 0.36 0.56 0.38 0.44 0.43 0.49 -
    MAE  regnet        test       1.19 1.17 0.36 0.59 0.40 0.50 0.43 0.51 -
    TRE  affine        test       8.08 7.18 4.21 4.40 3.92 5.64 3.80 4.25 685
    TRE  bspline_1r    test       5.48 7.56 2.47 4.01 2.64 5.71 2.92 4.12 685
    TRE  bspline_3r    test       2.19 6.22 0.67 1.97 1.04 5.07 1.45 3.21 685
    TRE  regnet        test       4.39 7.54 2.19 4.53 1.79 4.83 2.35 4.33 685
    TRE' affine        test       5.39 2.25 2.80 2.04 2.70 1.92 2.73 1.93 503
    TRE' bspline_1r    test       2.59 2.28 1.02 1.44 1.09 1.47 1.72 1.56 503
    TRE' bspline_3r    test       1.28 0.94 0.41 0.51 0.42 0.43 1.00 0.86 503
    TRE' regnet        test       1.66 1.26 0.58 0.62 0.64 0.77 1.19 1.10 503
"""
"""Table 2.1 of Sokooti (2021): evaluation, method, data; mean and sd of the measure and of x, y, z, in mm; landmarks."""

_STATISTICS = [f"{measure}_{statistic}" for measure in MEASURES for statistic in ("mean", "sd")]

_NUMBERS = [*_STATISTICS, "median", "zero_field_mae", *(f"chapter_{name}" for name in _STATISTICS)]

_COUNTS = ["n", "n_cases", "patches_seen", "blocks_seen", "chapter_n"]

COLUMNS = [
    *("evaluation", "method", "data"),
    *_STATISTICS,
    *("median", "n", "n_cases", "patches_seen", "blocks_seen", "zero_field_mae"),
    *(f"chapter_{name}" for name in _STATISTICS),
    "chapter_n",
]
"""Columns of the table, in order. Lengths are in mm. `n` counts points (MAE) or landmarks (TRE, TRE'), `n_cases` the images or
pairs they come from. Rows of networks have `patches_seen` and `blocks_seen`; MAE rows have `zero_field_mae`, the MAE of
predicting no displacement."""

_CAPTION = (
    "Quantitative results in mm, mean ± standard deviation. MAE is the sum of the absolute errors along x, y and z at points "
    "of synthetic pairs; TRE the Euclidean distance at landmarks; TRE' the same for landmarks in the capture range after "
    "affine registration. The lines named chapter quote Table 2.1 of Sokooti (2021), which was measured on the SPREAD data; "
    "ours were measured on other images, so they differ by the data as well as by the implementation."
)


def table_2_1(landmarks: pd.DataFrame, synthetic: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Make the chapter's table from the errors at landmarks and at points of synthetic pairs.

    Parameters
    ----------
    landmarks
        Errors at the landmarks of the test pairs, columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`.
    synthetic
        Errors at points of synthetic pairs, columns as in `regnet.evaluation.long_tables.POINT_COLUMNS`.
    facts
        For each network variant the facts that its training wrote (``models/<variant>/facts.json``). Two are used:
        ``blocks_seen`` and ``patches_seen``, the blocks and patches the network saw, warm-up included. A block of k^3 outputs
        counts as k^3 overlapping patches.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. First the chapter's 12 rows in its order, then those of `THIS_PROJECT`, then the other methods and
        splits of the input that the chapter does not have. A row without data has ``n`` 0 and none of our numbers.
    """
    results = {(evaluation, method, data): part for evaluation, method, data, part in _parts(landmarks, synthetic)}
    chapter = {tuple(words[:3]): words[3:] for words in map(str.split, _CHAPTER.strip().splitlines())}
    rows = []
    added = [key for key in results if key not in chapter]
    for key in [*chapter, *sorted(added, key=lambda key: key[1] not in THIS_PROJECT)]:
        evaluation, method, data = key
        row = {"evaluation": evaluation, "method": method, "data": data, "n": 0, "n_cases": 0}
        if method in facts:
            row |= {name: facts[method][name] for name in ("patches_seen", "blocks_seen")}
        if key in results:
            row |= _statistics(evaluation, results[key])
        if key in chapter:
            *numbers, count = chapter[key]
            row |= {f"chapter_{name}": float(number) for name, number in zip(_STATISTICS, numbers, strict=True)}
            row["chapter_n"] = None if count == "-" else int(count)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(_NUMBERS, float) | dict.fromkeys(_COUNTS, "Int64"))


def write_table(table: pd.DataFrame, csv: str | Path, md: str | Path, tex: str | Path) -> None:
    """Write the table of `table_2_1` for programs (CSV, all digits), GitHub (Markdown) and a paper (LaTeX).

    The LaTeX file is a complete ``table`` to ``\\input``; it needs ``\\usepackage{booktabs}``.
    """
    with whole_file(csv) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    for path, text in ((md, _markdown(table)), (tex, _latex(table))):
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")


def _parts(landmarks: pd.DataFrame, synthetic: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Evaluation, method, data and errors of each row that has errors."""
    for (variant, split), points in synthetic.groupby(["variant", "split"], sort=False):
        yield "MAE", variant, split, points
    for evaluation, frame in (("TRE", landmarks), ("TRE'", landmarks[landmarks["within_capture_range"].astype(bool)])):
        for method, errors in frame.groupby("method", sort=False):
            yield evaluation, method, "test", errors


def _statistics(evaluation: str, errors: pd.DataFrame) -> dict[str, float]:
    column, case = ("mae", "image") if evaluation == "MAE" else ("error", "pair")
    summary = summarize(errors, [column, *(f"{column}_{axis}" for axis in AXES)])
    summary.index = list(MEASURES)
    row = {f"{measure}_{name}": summary.loc[measure, name] for measure in MEASURES for name in ("mean", "sd")}
    row |= {"median": summary.loc["measure", "median"], "n": len(errors), "n_cases": errors[case].nunique()}
    return row | ({"zero_field_mae": zero_field_mae(errors)} if evaluation == "MAE" else {})


def _markdown(table: pd.DataFrame) -> str:
    header = ["Evaluation", "Method", "Data", "", "measure", *AXES, "median", "n"]
    rows, last = [], _group(table.iloc[0])
    for _, row in table.iterrows():
        if (group := _group(row)) != last:
            rows.append([f"**{group}**", *[""] * (len(header) - 1)])
            last = group
        # Two lines in each cell of one row: a Markdown cell cannot span rows.
        cells = ["ours", *_ours(row)]
        if pd.notna(row["chapter_measure_mean"]):
            cells = [f"{ours}<br>{chapter}" for ours, chapter in zip(cells, ["chapter", *_chapters(row)], strict=True)]
        rows.append([markdown(row["evaluation"]), markdown(_name(row)), markdown(row["data"]), *cells])
    text = markdown_table(header, rows, 4)
    notes = "".join(f"- {markdown(note)}\n" for note in _notes(table))
    return f"**Table 2.1.** {markdown(_CAPTION)}\n\n{text}\n{notes}"


def _latex(table: pd.DataFrame) -> str:
    rows, last, last_group = [], None, _group(table.iloc[0])
    for _, row in table.iterrows():
        evaluation = row["evaluation"]
        if last not in (None, evaluation):
            rows.append([])
        if (group := _group(row)) != last_group:
            rows.append([f"\\textit{{{group}}}"])
            last, last_group = None, group
        label = ["" if evaluation == last else evaluation, _name(row), row["data"]]
        rows.append([latex(cell) for cell in [*label, *_ours(row)]])
        if pd.notna(row["chapter_measure_mean"]):
            rows.append(["", "\\quad\\textit{chapter}", "", *map(latex, _chapters(row))])
        last = evaluation
    header = ["Evaluation", "Method", "Data", "measure", *(f"${axis}$" for axis in AXES), "median", "$n$"]
    text = latex_table(header, rows, 3, caption=_CAPTION, label="tab:table_2_1", notes=" ".join(_notes(table)))
    return f"% Needs \\usepackage{{booktabs}}.\n{text}"


def _notes(table: pd.DataFrame) -> list[str]:
    """The sentences below the table."""
    notes = ["The standard deviation is that of a sample; n counts points (MAE) or landmarks (TRE, TRE')."]
    rows = table[(table["evaluation"] == "MAE") & (table["n"] > 0)]
    if len(rows):
        references = [
            f"{row['zero_field_mae']:.2f} mm ({method_name(row['method'])}, {row['data']})" for _, row in rows.iterrows()
        ]
        notes.append(f"MAE of predicting no displacement at the same points: {', '.join(references)}.")
    trained = table.dropna(subset="patches_seen").drop_duplicates("method")
    if len(trained):
        # Variants of RegNet alone are trained on patches.
        on_crops = trained["method"].isin(THIS_PROJECT)
        counts = [
            f"{method_name(row['method'])} {row['patches_seen']:,} in {row['blocks_seen']:,} blocks"
            for _, row in trained[~on_crops].iterrows()
        ]
        if counts:
            notes.append(
                f"Patches seen in training, texture warm-up included, and the blocks of neighbouring patches they were cut in: "
                f"{'; '.join(counts)}. Sokooti (2021) used about 1 million patches."
            )
        notes += [f"{method_name(row['method'])} saw {row['blocks_seen']:,} crops." for _, row in trained[on_crops].iterrows()]
    if (table["evaluation"].str.startswith("TRE") & table["n"].between(1, FEW - 1)).any():
        notes.append(f"† rests on fewer than {FEW} landmarks.")
    return notes


def _group(row: pd.Series) -> str:
    """The heading under which a row stands."""
    if pd.notna(row["chapter_measure_mean"]):
        return "The chapter's rows"
    return "This project" if row["method"] in THIS_PROJECT else "Other methods"


def _name(row: pd.Series) -> str:
    return method_name(row["method"])


def _ours(row: pd.Series) -> list[str]:
    """Our cells: measure, x, y, z, median, n; marked if they are based on few landmarks."""
    cells = [mean_and_sd(row[f"{name}_mean"], row[f"{name}_sd"]) for name in MEASURES]
    cells += [number(row["median"]), f"{row['n']:,}"]
    is_marked = row["evaluation"].startswith("TRE") and 0 < row["n"] < FEW
    return [f"{cell}†" for cell in cells] if is_marked else cells


def _chapters(row: pd.Series) -> list[str]:
    """The chapter's cells, in the order of `_ours`; it prints no median, and no number of points for the MAE."""
    cells = [mean_and_sd(row[f"chapter_{name}_mean"], row[f"chapter_{name}_sd"]) for name in MEASURES]
    return [*cells, "–", "–" if pd.isna(row["chapter_n"]) else f"{row['chapter_n']:,}"]
