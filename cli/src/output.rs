//! What commands print: aligned columns on a terminal, tab-separated lines for other programs,
//! JSON on request. Results go to stdout, everything about their making to stderr.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// Says something about the making of a result on stderr. Nobody may be left to read it, as after the end of a
/// terminal, and that ends nothing, where `eprintln!` panics.
pub(crate) fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns on a terminal, tab-separated lines without borders in a pipe
    #[default]
    #[value(alias = "table")]
    Text,
    /// One JSON document; one object a line where results come one by one
    Json,
}

/// Something that is a line of a table.
pub(crate) trait Row: Serialize {
    const HEADER: &'static [&'static str];

    /// As many cells as the header has.
    fn cells(&self) -> Vec<String>;

    /// How it looks where there are colours.
    fn tone(&self) -> Tone {
        Tone::Plain
    }
}

/// What a line is to whoever reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    is_terminal: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, is_terminal: io::stdout().is_terminal() }
    }

    /// Whether a person reads what is printed.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a list: a table with its header, or a JSON array. Without a terminal the header
    /// is printed as well, so that columns can be told apart.
    pub(crate) fn rows<R: Row>(&self, rows: &[R]) -> io::Result<()> {
        if self.is_json() {
            return self.json(&rows);
        }
        let lines: Vec<_> = rows.iter().map(|row| (row.cells(), row.tone())).collect();
        self.table(R::HEADER, &lines)
    }

    /// Prints one thing: a table of names and values, or a JSON object.
    pub(crate) fn fields(&self, fields: &[(&str, String)]) -> io::Result<()> {
        if self.is_json() {
            let object: serde_json::Map<_, _> = fields
                .iter()
                .map(|(name, value)| (json_name(name), value.clone().into()))
                .collect();
            return self.json(&object);
        }
        let lines = fields.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
        let lines: Vec<_> = lines.map(|line| (line, Tone::Plain)).collect();
        self.table(&[], &lines)
    }

    /// Prints one JSON document over several lines.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, value)?;
        writeln!(out)
    }

    /// Prints one JSON object as one line.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, value)?;
        writeln!(out)
    }

    /// Prints one line of text.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// Says that a change was made: `text` on stdout, or `object` as JSON.
    pub(crate) fn done<T: Serialize>(&self, text: &str, object: &T) -> io::Result<()> {
        if self.is_json() { self.json(object) } else { self.line(text) }
    }

    fn table(&self, header: &[&str], lines: &[(Vec<String>, Tone)]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            let header = header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let header = (!header.is_empty()).then_some(&header);
            for line in header.into_iter().chain(lines.iter().map(|(line, _)| line)) {
                writeln!(
                    out,
                    "{}",
                    line.iter().map(|cell| flat(cell)).collect::<Vec<_>>().join("\t")
                )?;
            }
            return Ok(());
        }
        let mut table = Table::new();
        // Wrapped ids cannot be copied, so lines are as long as they are.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !header.is_empty() {
            table.set_header(header.iter().map(|name| styled(name)).collect::<Vec<_>>());
        }
        for (line, tone) in lines {
            table.add_row(line.iter().map(|cell| toned(cell, *tone)).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
    }
}

fn styled(name: &str) -> Cell {
    let cell = Cell::new(name);
    if has_colour() { cell.add_attribute(Attribute::Bold) } else { cell }
}

fn toned(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(flat(text));
    match tone {
        Tone::Good if has_colour() => cell.fg(Color::Green),
        Tone::Bad if has_colour() => cell.fg(Color::Red),
        Tone::Plain | Tone::Good | Tone::Bad => cell,
    }
}

/// Whether stdout may carry escapes. See <https://no-color.org>.
pub(crate) fn has_colour() -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_off && io::stdout().is_terminal()
}

/// A cell on one line, with no tab of its own and no control character that a message or a peer
/// could steer the terminal with.
fn flat(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `Store time` → `storeTime`.
fn json_name(name: &str) -> String {
    let mut words = name.split([' ', '-']);
    let mut out = words.next().unwrap_or_default().to_ascii_lowercase();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        out.push_str(&first.to_ascii_uppercase());
        out.push_str(&rest.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_steer_a_terminal() {
        assert_eq!(flat("a\tb\u{1b}[31m\n"), "a b [31m ");
        assert_eq!(json_name("Store time"), "storeTime");
    }
}
