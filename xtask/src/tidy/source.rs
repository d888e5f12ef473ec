//! Rust source as far as the checks need it: code without comments and literals, and the paths that it names.
//!
//! A lexer, not a parser: it also sees into macro calls, and has nothing to learn when the language grows.

/// `source` with the contents of comments, strings and characters replaced by spaces. Same lines, same columns (in
/// characters).
pub fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that starts at `at`; `at` itself if none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let next = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    match (chars[at], next(1)) {
        ('/', '/') => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        ('/', '*') => end_of_block_comment(chars, at),
        ('"', _) => end_of_quoted(chars, at + 1, '"'),
        ('r', '"' | '#') if !is_word_before(chars, at) => end_of_raw_string(chars, at),
        // A character, or a lifetime, which has no closing quote after its first letter.
        ('\'', '\\') => end_of_quoted(chars, at + 1, '\''),
        ('\'', _) if next(2) == '\'' => at + 3,
        _ => at,
    }
}

/// `true` if `at` continues a word. A `b` or `c` that is a word of its own is the prefix of a literal.
fn is_word_before(chars: &[char], at: usize) -> bool {
    let word = |i: usize| chars.get(i).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    match at.checked_sub(1) {
        Some(before) if matches!(chars[before], 'b' | 'c') => before.checked_sub(1).is_some_and(word),
        Some(before) => word(before),
        None => false,
    }
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `start` at the `r`. A raw identifier (`r#type`) is no literal.
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let closes = |at: usize| {
        chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (open + 1..chars.len()).find(|&at| closes(at)).map_or(chars.len(), |at| at + 1 + hashes)
}

/// The lines before the module of unit tests, which by convention ends a file.
pub fn without_tests(source: &str) -> &str {
    let mut at = 0;
    let mut lines = source.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]")
            && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.contains('{'))
        {
            return &source[..at];
        }
        at += line.len();
    }
    source
}

/// The files of the modules that a file declares for tests only (`#[cfg(test)] mod golden;`), without `.rs`: what is
/// below such a path is test code as well.
pub fn test_modules(path: &str, source: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let (directory, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let directory = if matches!(name, "mod" | "lib" | "main") { directory } else { stem };
    let mut found = Vec::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        let declared = lines.peek().and_then(|next| next.trim().strip_suffix(';')?.split_once("mod "));
        if let (true, Some((_, module))) = (line.trim() == "#[cfg(test)]", declared) {
            found.push(format!("{directory}/{module}"));
        }
    }
    found
}

/// A path in the code, braces expanded: `use crate::{a, b::C}` names two.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// From 1.
    pub line: usize,
    /// `["crate", "b", "C"]`.
    pub segments: Vec<String>,
    /// It is followed by `!`: a macro call.
    pub is_macro: bool,
}

/// All paths and single names in code (as [`code`] returns it).
pub fn named(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let continues = at > 0 && tokens[at - 1].1 == "." || is_inside_path(&tokens, at);
        at = if is_name(tokens[at].1) && !continues {
            tree(&tokens, at, &mut Vec::new(), &mut found)
        } else {
            at + 1
        };
    }
    found
}

/// `true` after the `::` of a longer path. One that starts a path (`::aya::Pod`) is after no name and no `>`.
fn is_inside_path(tokens: &[(usize, &str)], at: usize) -> bool {
    at > 1 && tokens[at - 1].1 == "::" && (is_name(tokens[at - 2].1) || tokens[at - 2].1 == ">")
}

/// Reads the path or use-tree at `at`, appends its leaves to `found`, returns the token after it.
fn tree(tokens: &[(usize, &str)], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Named>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |(_, text)| *text);
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    let depth = prefix.len();
    loop {
        prefix.push(text(at).to_owned());
        at += 1;
        if text(at) != "::" || !(is_word(text(at + 1)) || matches!(text(at + 1), "{" | "*")) {
            break;
        }
        at += 1;
        if text(at) == "{" {
            at = branches(tokens, at + 1, prefix, found);
            prefix.truncate(depth);
            return at;
        }
    }
    found.push(Named { line, segments: prefix.clone(), is_macro: text(at) == "!" && text(at + 1) != "=" });
    prefix.truncate(depth);
    at
}

fn branches(
    tokens: &[(usize, &str)],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Named>,
) -> usize {
    while let Some((_, text)) = tokens.get(at) {
        match *text {
            "}" => return at + 1,
            // `x as y`: the new name is none of the path's.
            "as" => at += 2,
            text if is_word(text) || text == "*" => at = tree(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// `true` for a word that can start a path.
fn is_name(text: &str) -> bool {
    const KEYWORDS: [&str; 17] = [
        "as", "dyn", "else", "fn", "for", "if", "impl", "in", "let", "match", "mod", "move", "mut", "pub",
        "return", "use", "where",
    ];
    is_word(text) && !KEYWORDS.contains(&text)
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        named(&code(source)).iter().filter(|n| n.segments.len() > 1).map(|n| n.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_blank() {
        let source = "a /* b /* c */ d */ e // f\n\"g\\\"h\" i 'j' '\\'' k r#\"l\"m\"# n b\"o\" br\"p\" c'q'";
        let words: Vec<_> = code(source).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "e", "i", "k", "n", "b", "b", "c"]);
        assert_eq!(code(source).lines().count(), 2);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a str, r#type: u8) {}"), "fn f<'a>(x: &'a str, r#type: u8) {}");
        assert_eq!(code("for r in var\"\" {}").trim_end(), "for r in var   {}");
    }

    #[test]
    fn use_trees_are_expanded() {
        assert_eq!(
            paths("use std::{fs, io::{self, Write as W}};\nuse crate::model::*;"),
            ["std::fs", "std::io::self", "std::io::Write", "crate::model::*"]
        );
        assert_eq!(paths("use {crate::a::X, crate::b};"), ["crate::a::X", "crate::b"]);
    }

    #[test]
    fn paths_in_expressions_types_and_macros_are_seen() {
        assert_eq!(
            paths("let x: Vec<crate::bpf::Map> = vec![super::f(), <T as ::aya::Pod>::new()]; a.b::<c::D>()"),
            ["crate::bpf::Map", "super::f", "aya::Pod", "c::D"]
        );
    }

    #[test]
    fn macro_calls_are_marked() {
        let found = named("println!(x); a != b; std::write!(f);");
        let macros: Vec<_> = found.iter().filter(|n| n.is_macro).map(|n| n.segments.join("::")).collect();
        assert_eq!(macros, ["println", "std::write"]);
    }

    #[test]
    fn modules_for_tests_are_found_where_their_files_are() {
        let source =
            "mod a;\n#[cfg(test)]\npub(crate) mod b;\n#[cfg(test)]\nmod tests {\n}\n#[cfg(unix)]\nmod c;\n";
        assert_eq!(test_modules("profiler/src/render/mod.rs", source), ["profiler/src/render/b"]);
        assert_eq!(test_modules("profiler/src/target.rs", source), ["profiler/src/target/b"]);
    }

    #[test]
    fn tests_at_the_end_are_cut_off() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb\n}\n"), "a\n");
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests;\nb\n"), "a\n#[cfg(test)]\nmod tests;\nb\n");
        assert_eq!(without_tests("a\n"), "a\n");
    }
}
