"""Draws the figures and the page of a finished sweep: python experiments/report.py FOLDER."""

import argparse

from rankbias.report import write_report


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", help="WORKDIR/CONFIG_NAME, the folder that holds the run folders")
  parser.add_argument("--pdf", action="store_true", help="write each figure as PDF too")
  parser.add_argument("--redraw", action="store_true", help="draw figures that are up to date too")
  parser.add_argument("--every", action="store_true", help="all figures of each of many settings")
  flags = parser.parse_args()
  try:
    print(write_report(flags.folder, pdf=flags.pdf, redraw=flags.redraw, every=flags.every))
  except ValueError as error:
    parser.error(str(error))


if __name__ == "__main__":
  main()
