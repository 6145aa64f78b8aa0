//! The nearest known name of a misspelt one.

/// The name most like `wrong`, if one is like it at all.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_ascii_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&lower, &name.to_ascii_lowercase());
    names
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        let names = ["retention_hours", "segment_bytes", "flush"];
        assert_eq!(nearest("retention_hour", names.into_iter()), Some("retention_hours"));
        assert_eq!(nearest("Flsh", names.into_iter()), Some("flush"));
        assert_eq!(nearest("colour", names.into_iter()), None);
    }
}
