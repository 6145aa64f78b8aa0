//! Java's `.properties` text, the form of Apache's `broker.conf`.

/// One `key=value`, with the line it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Property {
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Reads all pairs in the order of the file. Nothing is an error, as in Java: a line without a
/// separator is a key with an empty value.
///
/// Source: `java.util.Properties.load`, except that a value's trailing blanks go as well. Java
/// keeps them, and `flushDiskType=SYNC_FLUSH ` then stops Apache's broker.
pub(crate) fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_in_open_backslash(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let value = unescape(value).trim_end().to_owned();
        properties.push(Property { line: at + 1, key: unescape(key), value });
    }
    properties
}

fn ends_in_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Cuts at the first `=`, `:` or blank that no backslash protects.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.find(|c: char| {
        let ends = !is_escaped && (matches!(c, '=' | ':') || c.is_ascii_whitespace());
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let rest = line[end..].trim_start();
    (&line[..end], rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start())
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text).into_iter().map(|p| (p.line, p.key, p.value)).collect()
    }

    #[test]
    fn separators_comments_and_continued_lines_are_those_of_java() {
        let text =
            "# c\n! c\n\n  a=1\nb : 2\nc 3\nd\nnamesrvAddr = h1:9876;\\\n    h2:9876 \nx\\=y=z\n";
        let found = pairs(text);
        let expected = [
            (4, "a", "1"),
            (5, "b", "2"),
            (6, "c", "3"),
            (7, "d", ""),
            (8, "namesrvAddr", "h1:9876;h2:9876"),
            (10, "x=y", "z"),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(l, k, v)| (l, k.to_owned(), v.to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn escapes_are_read_and_windows_line_ends_are_no_part_of_a_value() {
        let path = pairs("p=C\\:\\\\store\\u0041\r\nq=1\r\n");
        assert_eq!(path[0].2, "C:\\storeA");
        assert_eq!(path[1].2, "1");
        assert_eq!(pairs("open=\\"), [(1, "open".to_owned(), String::new())]);
    }
}
