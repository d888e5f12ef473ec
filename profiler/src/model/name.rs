//! Names from outside (commands, paths, symbols): bounded and cleaned once, where they enter the model.

/// Longest name kept, bytes. C++ template names pass 1 KiB; what is longer is cut and marked with `...`.
pub const MAX_NAME_BYTES: usize = 4096;

/// Makes a name safe to print anywhere text goes: invalid UTF-8 becomes U+FFFD; control, bidirectional-override and
/// other invisible formatting characters, and the two code points that XML forbids, become escapes like `\n`, `\x1b`,
/// `\u{202e}`; at most [`MAX_NAME_BYTES`]. An empty name becomes `[empty]`.
pub fn clean(raw: &[u8]) -> String {
    let raw = &raw[..raw.len().min(MAX_NAME_BYTES + 4)];
    let text = String::from_utf8_lossy(raw);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let before = out.len();
        if is_unprintable(c) {
            out.extend(escape(c))
        } else {
            out.push(c)
        }
        if out.len() > MAX_NAME_BYTES {
            out.truncate(before);
            out.push_str("...");
            break;
        }
    }
    if out.is_empty() { "[empty]".to_owned() } else { out }
}

/// [`clean`] for a NUL-terminated field of fixed size (a task's `comm`).
pub fn clean_c(raw: &[u8]) -> String {
    clean(raw.split(|&b| b == 0).next().unwrap_or_default())
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let text = match c {
        '\n' | '\r' | '\t' => c.escape_default().to_string(),
        c if (c as u32) < 0x80 => format!("\\x{:02x}", c as u32),
        c => c.escape_unicode().to_string(),
    };
    text.chars().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean(b"a\x1b[31m\nb\0"), r"a\x1b[31m\nb\x00");
        assert_eq!(clean("x\u{202e}y".as_bytes()), r"x\u{202e}y");
        assert_eq!(clean_c(b"java\0junk"), "java");
        assert_eq!(clean("x\u{ffff}y\u{fffd}".as_bytes()), "x\\u{ffff}y\u{fffd}");
        assert_eq!(clean(b""), "[empty]");
    }

    #[test]
    fn ordinary_names_are_untouched() {
        for name in ["std::vec<int>", "grüße", "関数", "a;b c<d>&\"'"] {
            assert_eq!(clean(name.as_bytes()), name);
        }
    }

    proptest! {
        #[test]
        fn bounded_and_printable(raw: Vec<u8>) {
            let name = clean(&raw);
            prop_assert!(name.len() <= MAX_NAME_BYTES + 3);
            prop_assert!(!name.chars().any(is_unprintable));
            prop_assert_eq!(clean(name.as_bytes()), name.clone());
        }

        #[test]
        fn long_names_are_cut(n in MAX_NAME_BYTES + 1..3 * MAX_NAME_BYTES) {
            let name = clean(&vec![b'x'; n]);
            prop_assert!(name.ends_with("..."));
            prop_assert_eq!(name.len(), MAX_NAME_BYTES + 3);
        }
    }
}
