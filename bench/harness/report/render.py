"""From one raw file: the table on the terminal, a Markdown page and plots beside the file, and the
middle part of docs/benchmarks.md."""

import pathlib

from ..goals import summarise
from ..places import REPOSITORY, RESULTS
from .plots import plot
from .table import markdown_table, notes, text_table

PAGE = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin, written by bench/run --page -->", "<!-- results: end -->"
PLOTS = {
    "sends": ("Sends, answered from memory", lambda row: row.section == "Sends"),
    "sync": ("Sends, on disk when answered", lambda row: row.section == "Sends, on disk when answered"),
    "pulls": ("Pulls", lambda row: row.section in ("Pulls", "Pulls from the disk")),
    "latency": ("Latency at 5,000 messages a second", lambda row: row.section.startswith("Latency")),
    "cpu": ("Broker CPU", lambda row: row.section == "Broker CPU"),
    "topics": ("Many topics, restarts, idle connections, at rest",
               lambda row: row.section.endswith("topics") or row.section.startswith("kill -9")
               or row.section.endswith("idle connections") or row.section == "At rest"),
}


def render(document, path, with_page):
    rows = summarise(document)
    path = pathlib.Path(path).resolve()
    names = []
    for name, (title, belongs) in PLOTS.items():
        part = [row for row in rows if belongs(row)]
        if part:
            names.append(f"{path.stem}-{name}.svg")
            (RESULTS / names[-1]).write_text(plot(title, part))
    lines = [circumstances(document), "", markdown_table(document, rows), "", "Notes:", "",
             *(f"- {note}" for note in notes(document))]
    (RESULTS / f"{path.stem}.md").write_text("\n".join(
        [f"# {path.stem}", "", *lines, "", *(f"![]({name})" for name in names), ""]))
    if with_page:
        pictures = [f"![](../bench/results/{name})" for name in names]
        raw = f"Raw file: [{path.name}](../bench/results/{path.name})."
        write_page("\n".join([raw, *lines, "", *pictures]))
    print(f"\n{circumstances(document)}\n\n{text_table(document, rows)}\n")
    print("\n".join(notes(document)))
    print(f"Raw results: {path.relative_to(REPOSITORY)}")


def circumstances(document):
    options = document["options"]
    form = "binary" if options["binary"] else "JSON"
    disks = [found["disk"] for found in document["calibrations"] if found.get("disk")]
    disk = ""
    if disks:
        syncs = sorted(found["fdatasync"]["p50_us"] for found in disks)
        written = sorted(found["buffered_megabytes_per_second"] for found in disks)
        disk = (f" fdatasync of 4 KiB took {syncs[0]:.0f} to {syncs[-1]:.0f} us, buffered writes went at "
                f"{written[0]:.0f} to {written[-1]:.0f} MB/s.")
    awake = ", processors kept awake" if options.get("awake") else ""
    return (f"{document['date'][:10]}, commit {document['commit']}, {document['cores']} cores shared with the load, "
            f"1 KiB bodies, {form} headers{awake}; median (range).{disk}")


def write_page(middle):
    page = PAGE.read_text()
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    PAGE.write_text(f"{before}{BEGIN}\n{middle}\n{END}{after}")
