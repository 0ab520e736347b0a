"""The kinds of landmark files that `regnet.images.landmarks` reads and writes."""

LANDMARK_FORMATS = {
    "point": "elastix point file, mm (LPS)",
    "index": "elastix point file, voxel numbers from 0",
    "table": "CSV table with the columns x, y and z, mm (LPS)",
    "fcsv": "3D Slicer .fcsv, mm (LPS or RAS)",
    "markups": "3D Slicer .mrk.json, mm (LPS or RAS)",
    "pts": "POPI .pts, mm (LPS)",
    "dirlab": "DIR-Lab text, voxel numbers from 1, the topmost slice first",
    "learn2reg": "Learn2Reg CSV without a header, voxel numbers from 0",
}
"""The kinds of landmark files. Those with voxel numbers need the image they belong to, to be read or written."""

VOXEL_FORMATS = ("index", "dirlab", "learn2reg")
"""The kinds that hold voxel numbers."""

SLICER_FORMATS = ("fcsv", "markups")
"""The kinds that state whether their points are in LPS or RAS."""

SUFFIXES = {"fcsv": ".fcsv", "markups": ".mrk.json", "pts": ".pts", "table": ".csv", "learn2reg": ".csv"}
"""Suffixes that identify a kind. Files of the other kinds may end in anything but these."""
