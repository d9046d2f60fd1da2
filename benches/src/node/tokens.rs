//! Splits source text into identifiers, and identifiers into the words they are made of.

/// Longest identifier that is looked at; longer ones are data.
const IDENTIFIER_BYTES_MAX: usize = 64;

/// The identifiers of a text with their byte offsets.
pub(super) fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            while at < bytes.len() && !is_word(bytes[at]) {
                at += 1;
            }
            let start = at;
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            if start == at {
                return None;
            }
            if at - start <= IDENTIFIER_BYTES_MAX {
                return Some((start, &text[start..at]));
            }
        }
    })
}

/// ASCII only: offsets then always fall on character boundaries.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The words an identifier is made of: `parseHTTPHeader_v2` → parse, HTTP, Header, v, 2.
pub(super) fn subtokens(identifier: &str) -> impl Iterator<Item = &str> {
    let bytes = identifier.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !bytes[at].is_ascii_alphanumeric() {
            at += 1;
        }
        let start = at;
        while at < bytes.len() && bytes[at].is_ascii_alphanumeric() {
            if at > start && is_boundary(bytes, at) {
                break;
            }
            at += 1;
        }
        (start < at).then(|| &identifier[start..at])
    })
}

/// Whether a new word begins at `at`: lower→Upper, the last of a run of capitals before a lower,
/// or a change between letters and digits.
fn is_boundary(bytes: &[u8], at: usize) -> bool {
    let (before, here) = (bytes[at - 1], bytes[at]);
    let next_is_lower = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
    (before.is_ascii_lowercase() && here.is_ascii_uppercase())
        || (before.is_ascii_uppercase() && here.is_ascii_uppercase() && next_is_lower)
        || (before.is_ascii_digit() != here.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_with_their_offsets() {
        let found: Vec<_> = identifiers("let größe = parse_x(2);").collect();
        assert_eq!(found, [(0, "let"), (4, "gr"), (10, "e"), (14, "parse_x"), (22, "2")]);
        assert_eq!(identifiers(&"x".repeat(65)).count(), 0);
    }

    #[test]
    fn subtokens_split_snake_camel_capitals_and_digits() {
        let split = |name| subtokens(name).collect::<Vec<_>>();
        assert_eq!(split("parseHTTPHeader_v2"), ["parse", "HTTP", "Header", "v", "2"]);
        assert_eq!(split("__init__"), ["init"]);
        assert_eq!(split("MAX_SERIES"), ["MAX", "SERIES"]);
        assert_eq!(split("_"), [""; 0]);
    }
}
