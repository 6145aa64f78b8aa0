"""The result as a table: for the terminal and in Markdown."""

import re

from ..brokers import BROKERS, WEIRMQ
from ..generator import is_noisy
from ..goals import number


def columns(document):
    return [name for name in BROKERS if name in document["brokers"]]


def cells(row, names):
    """One line of either table, without its section."""
    goals = [(goal.text(row.better), goal.is_met(row)) for goal in row.goals]
    words = {True: "yes", False: "NO", None: "?"}
    return [
        row.label, row.unit,
        *(figures(row.values.get(name)) if row.values.get(name) or name not in row.failed else "failed"
          for name in names),
        f"{row.ratio:.1f}x" if row.ratio else "",
        f"{100 * row.of_ceiling:.0f} %" if row.of_ceiling else "",
        ", ".join(text for text, _ in goals),
        ", ".join(words[met] for _, met in goals),
    ]


def figures(values):
    """Median and range."""
    if not values:
        return "-"
    ordered = sorted(values)
    count = len(ordered)
    middle = number((ordered[(count - 1) // 2] + ordered[count // 2]) / 2)
    low, high = number(ordered[0]), number(ordered[-1])
    return middle if low == high else f"{middle} ({low}-{high})"


def heads(document):
    return ["", "unit", *(BROKERS[name].shown for name in columns(document)),
            "Apache ratio", "of ceiling", "goal", "met"]


def text_table(document, rows):
    names = columns(document)
    lines = [heads(document)]
    sections = {}
    for row in rows:
        sections.setdefault(row.section, []).append(cells(row, names))
    for section, part in sections.items():
        lines += [[section], *part]
    widths = [max(len(line[column]) for line in lines if len(line) > 1) for column in range(len(lines[0]))]
    shown = []
    for line in lines:
        if len(line) == 1:
            shown += ["", line[0]]
            continue
        padded = [cell.ljust(width) if column < 2 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))]
        shown.append("  ".join(padded).rstrip())
    return "\n".join(shown)


def markdown_table(document, rows):
    names = columns(document)
    sections = {}
    for row in rows:
        sections.setdefault(row.section, []).append(row)
    shown = []
    for section, part in sections.items():
        # Columns that say nothing in this section are left out.
        lines = [heads(document), *(cells(row, names) for row in part)]
        used = [column for column in range(len(lines[0]))
                if column == 0 or any(line[column] not in ("", "-") for line in lines[1:])]
        shown += ["", f"**{section}**", "", bar(lines[0][column] for column in used),
                  "|" + "|".join("---" if column < 2 else "---:" for column in used) + "|"]
        shown += [bar(emphasised(line[column], column, lines[0]) for column in used) for line in lines[1:]]
    return "\n".join(shown).strip()


def emphasised(cell, column, head):
    return f"**{cell}**" if head[column] == BROKERS[WEIRMQ].shown and cell != "-" else cell


def bar(words):
    return "| " + " | ".join(words) + " |"


def notes(document):
    """What has to be known beside the figures: noise, failures, and who is missing."""
    runs = document["runs"]
    noisy = sum("noisy" in run["marks"] for run in runs)
    lines = [f"{noisy} of {len(runs)} runs were noisy (others had more than {document['foreign_percent_max']:g} % of "
             "the machine) and are left out where a quiet one of the same kind is there."]
    no_quiet = {(run["broker"], run["workload"]) for run in runs} - {
        (run["broker"], run["workload"]) for run in runs if not run["marks"]}
    lines += [f"No quiet run: {BROKERS[broker].shown}, {workload}." for broker, workload in sorted(no_quiet)]
    lines += [f"Others had more than {document['foreign_percent_max']:g} % of the machine in {noise} of {len(reports)} runs of "
              f"{each['scenario']} with {BROKERS[each['broker']].shown}; they count all the same."
              for each in document["scenarios"] if (reports := list(reports_in(each))) and (noise := sum(map(is_noisy, reports)))]
    lines += [f"Not measured: {BROKERS[name].shown}: {first_line(reason)}." for name, reason in document["not_measured"].items()]
    lines += failures(document["failures"])
    lines += [f"Left out: {BROKERS[each['broker']].shown}, {key.split('_')[0]} topics: {value}."
              for each in document["scenarios"] for key, value in each.items() if key.endswith("_left_out")]
    return lines


def reports_in(found):
    """All reports of the generator in what a scenario found."""
    if isinstance(found, dict):
        if "usage" in found:
            yield found
        else:
            for each in found.values():
                yield from reports_in(each)
    elif isinstance(found, list):
        for each in found:
            yield from reports_in(each)


def failures(texts):
    """Those that differ in numbers, rounds and workloads only are one line: the first, and how many more there were."""
    alike = {}
    for text in texts:
        who, _, why = first_line(text).partition(": ")
        alike.setdefault((who.split(", round")[0].rpartition(", ")[0] or who, re.sub(r"[0-9]+", "0", why)), []).append(first_line(text))
    return [f"Failed: {same[0]}{f' ({len(same) - 1} more of the kind)' if len(same) > 1 else ''}." for same in alike.values()]


def first_line(text):
    """What a process wrote before it ended may be long; the raw file has all of it."""
    return text.partition("\n")[0]
