//! Names of classes and methods from the form that class files have to the form that people write.
//!
//! Source: share/oops/{klass,symbol,method}.cpp (`external_name`). They come from class files, which anybody can make:
//! everything is cleaned, nothing is assumed to be well formed.

use crate::model::name;

/// A class name: `java/util/Map$Entry` becomes `java.util.Map$Entry`. Of hidden classes (lambdas and the like, since
/// JDK 15) the address that makes them unique is behind a `+`, which is written as `/`.
pub fn class(raw: &[u8]) -> String {
    let mut out: Vec<u8> = raw.iter().map(|&byte| if byte == b'/' { b'.' } else { byte }).collect();
    if let Some(plus) = out.iter().rposition(|&byte| byte == b'+')
        && out[plus..].starts_with(b"+0x")
    {
        out[plus] = b'/';
    }
    clean(&out)
}

/// A name as text. Class files have "modified UTF-8": NUL takes two bytes, and characters outside the first 65,536 are
/// written as two surrogates of three bytes each.
pub fn clean(raw: &[u8]) -> String {
    if raw.is_ascii() {
        return name::clean(raw);
    }
    let mut units = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, ..] = rest {
        let low =
            |at: usize| rest.get(at).filter(|&byte| byte & 0xc0 == 0x80).map(|byte| u16::from(byte & 0x3f));
        let (unit, len) = match (first, low(1), low(2)) {
            (0..0x80, ..) => (u16::from(*first), 1),
            (0xc0..0xe0, Some(a), _) => (u16::from(first & 0x1f) << 6 | a, 2),
            (0xe0..0xf0, Some(a), Some(b)) => (u16::from(first & 0xf) << 12 | a << 6 | b, 3),
            _ => (0xfffd, 1),
        };
        units.push(unit);
        rest = rest.get(len..).unwrap_or_default();
    }
    name::clean(String::from_utf16_lossy(&units).as_bytes())
}

/// `RETURN NAME(PARAMETER, PARAMETER)` for a method and its descriptor. What is no descriptor is shown as it is.
pub fn external(method: &str, descriptor: &[u8]) -> String {
    match parse(descriptor) {
        Some((parameters, result)) => format!("{result} {method}({})", parameters.join(", ")),
        None => format!("{method}{}", clean(descriptor)),
    }
}

fn parse(descriptor: &[u8]) -> Option<(Vec<String>, String)> {
    let mut rest = descriptor.strip_prefix(b"(")?;
    let mut parameters = Vec::new();
    while !rest.starts_with(b")") {
        parameters.push(one_type(&mut rest)?);
    }
    rest = &rest[1..];
    let result = one_type(&mut rest)?;
    rest.is_empty().then_some((parameters, result))
}

fn one_type(rest: &mut &[u8]) -> Option<String> {
    let dimensions = rest.iter().take_while(|&&byte| byte == b'[').count();
    let (&kind, tail) = rest.get(dimensions..)?.split_first()?;
    *rest = tail;
    let mut text = match kind {
        b'B' => "byte".to_owned(),
        b'C' => "char".to_owned(),
        b'D' => "double".to_owned(),
        b'F' => "float".to_owned(),
        b'I' => "int".to_owned(),
        b'J' => "long".to_owned(),
        b'S' => "short".to_owned(),
        b'Z' => "boolean".to_owned(),
        b'V' => "void".to_owned(),
        b'L' => {
            let end = tail.iter().position(|&byte| byte == b';')?;
            *rest = &tail[end + 1..];
            // Not `class`: HotSpot changes slashes alone here.
            let dotted: Vec<u8> = tail[..end].iter().map(|&b| if b == b'/' { b'.' } else { b }).collect();
            clean(&dotted)
        }
        _ => return None,
    };
    // A class file allows 255.
    text.push_str(&"[]".repeat(dimensions.min(255)));
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_as_java_writes_them() {
        assert_eq!(class(b"java/util/Map$Entry"), "java.util.Map$Entry");
        assert_eq!(class(b"a/B$$Lambda+0x0000000800066800"), "a.B$$Lambda/0x0000000800066800");
        assert_eq!(class(b"kotlin/a+b"), "kotlin.a+b");
        assert_eq!(class(b"a/\x1b[31m"), r"a.\x1b[31m");
        assert_eq!(
            external("a.B.c", b"(IJ[[Ljava/lang/String;Z)[D"),
            "double[] a.B.c(int, long, java.lang.String[][], boolean)"
        );
        assert_eq!(external("a.B.c", b"()V"), "void a.B.c()");
        for odd in [&b"()"[..], b"(", b"(I", b"(Lx)V", b"()VV", b"(Q)V", b"x"] {
            assert!(external("m", odd).starts_with("m"), "{odd:?}");
        }
    }

    #[test]
    fn modified_utf_8_is_read() {
        assert_eq!(clean("größe".as_bytes()), "größe");
        assert_eq!(clean(b"\xed\xa0\xbd\xed\xb8\x80"), "\u{1f600}");
        assert_eq!(clean(b"a\xc0\x80b"), r"a\x00b");
        assert_eq!(clean(b"\xff\xe2\x82"), "\u{fffd}\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn anything_is_cleaned(raw: Vec<u8>) {
            drop((class(&raw), external("m", &raw)));
            let text = clean(&raw);
            prop_assert_eq!(name::clean(text.as_bytes()), text);
        }
    }
}
