//! Tag hashes, the eight bytes by which a ConsumeQueue entry is filtered without its body.

/// Java's `String.hashCode` over the UTF-16 units of `text`.
pub fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The hash of a message's tag as a ConsumeQueue entry stores it, 0 when there is no tag.
///
/// Source: `MessageExtBrokerInner.tagsString2tagsCode`.
pub fn tag_hash(tag: Option<&str>) -> i64 {
    match tag {
        Some(tag) if !tag.is_empty() => i64::from(java_string_hash(tag)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        assert_eq!(java_string_hash(""), 0);
        assert_eq!(java_string_hash("TagA"), 2598919);
        assert_eq!(java_string_hash("hello world"), 1794106052);
        assert_eq!(tag_hash(None), 0);
    }
}
