//! `-e uprobe:PATH:SYMBOL[+OFFSET]`, `-e uretprobe:PATH:SYMBOL` and `-e uspan:PATH:SYMBOL`: from words to a place in a file.
//!
//! The path is one of this process's, or of the first process that `-p` names, in whose root it is then looked for, links
//! included. A symbol is the name of a function as the file's symbol tables have it, or its address (`0x...`, ELF virtual).

use std::{fs::File, io, path::Path, sync::Arc};

use profiler_common::sample::MAX_HOOKS;

use super::{
    error::{Exit, Failure},
    near::near,
};
use crate::{
    elf::{self, Bytes},
    model::name::clean,
    probe::{
        Chosen, Event, Part,
        between::{self, NUMBER},
        uprobe::{Asked, Place},
    },
    symbolize::{functions, open},
};

/// The event that is written as `prefix` and `text`. `process`: whose files they are. `place`: how many hooks were named
/// before.
pub fn resolve(
    (prefix, returns): (&str, bool),
    text: &str,
    process: Option<u32>,
    place: usize,
) -> Result<Chosen, Failure> {
    let (name, at) = named(prefix, text, process, place, returns)?;
    let asked = Asked { name, places: vec![at], returns };
    Ok(Chosen { event: Event::Uprobe(place as u8), part: Part::Uprobe(asked) })
}

/// The event of the time in a function, whose name is written as `text` behind the prefix. The others: as of [`resolve`].
pub fn resolve_time(text: &str, process: Option<u32>, place: usize) -> Result<Chosen, Failure> {
    let (name, at) = named(between::PREFIX, text, process, place, true)?;
    let asked =
        between::Asked { number: format!("{name}{NUMBER}"), name, begins: vec![at.clone()], ends: vec![at] };
    Ok(Chosen { event: Event::Calls(place as u8), part: Part::Between(asked) })
}

/// The name that recordings have of an event, and the place that it is about. `whole`: of functions only.
fn named(
    prefix: &str,
    text: &str,
    process: Option<u32>,
    place: usize,
    whole: bool,
) -> Result<(String, Place), Failure> {
    let usage = |what: &str| refused(&format!("-e {prefix}{text}"), what);
    let form = if whole {
        format!("{prefix}PATH:FUNCTION")
    } else {
        format!("{prefix}PATH:FUNCTION or {prefix}PATH:FUNCTION+OFFSET")
    };
    // The name of a function has no colon, a path may have.
    let (path, symbol) = text
        .rsplit_once(':')
        .filter(|(path, symbol)| !path.is_empty() && !symbol.is_empty())
        .ok_or_else(|| usage("no path and function").mend(format!("write it {form}")))?;
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage(&message).mend("record the others by themselves"));
    }
    let (symbol, into) = match symbol.rsplit_once('+') {
        None => (symbol, 0),
        Some(_) if whole => return Err(usage("a function returns as a whole: no offset")),
        Some((symbol, offset)) => {
            let into = number(offset).ok_or_else(|| usage("the offset is not a number"))?;
            (symbol, into)
        }
    };
    let file = file_of(Path::new(path), process).map_err(|error| usage(&error.to_string()))?;
    let offset = place_in(&file, symbol, into).map_err(|Refused { what, mend }| {
        let failure = usage(&what);
        if mend.is_empty() { failure } else { failure.mend(clean(mend.as_bytes())) }
    })?;
    if whole {
        match Returns::of(&file) {
            Returns::Kept => {}
            Returns::Read => {
                log::warn!(
                    "-e {prefix}{}: an exception (C++) or a panic (Rust) that goes through the function while it is recorded ends \
                     the program",
                    clean(text.as_bytes())
                );
            }
            Returns::Moved => {
                let what = "a program in Go moves its stacks, and does not survive that a return is hooked";
                return Err(usage(what).mend("record its calls: uprobe:PATH:FUNCTION"));
            }
        }
    }
    let into = if into == 0 { String::new() } else { format!("+{into:#x}") };
    let name = format!("{prefix}{}:{}{into}", clean(path.as_bytes()), clean(symbol.as_bytes()));
    Ok((name, Place { file: Arc::new(file), offset, semaphore: None }))
}

/// A usage error: what was written, and what is wrong with it.
pub(super) fn refused(written: &str, what: &str) -> Failure {
    let message = format!("{}: {}", clean(written.as_bytes()), clean(what.as_bytes()));
    Failure::new(Exit::Usage, message)
}

/// Opens a regular file of this process, or of another one in its root.
pub(super) fn file_of(path: &Path, process: Option<u32>) -> io::Result<File> {
    let Some(pid) = process else { return open::regular(path) };
    let in_root =
        |error: io::Error| io::Error::new(error.kind(), format!("{error} (in the root of process {pid})"));
    in_root_of(path, pid).map_err(in_root)
}

fn in_root_of(path: &Path, pid: u32) -> io::Result<File> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path"));
    }
    let root = open::process_root(pid)?;
    if open::is_own_root(&root) {
        return open::regular(path);
    }
    use std::os::fd::AsFd as _;
    open::regular_in(root.as_fd(), path)
}

/// What a program does with return addresses on its stack, beside returning. While a return is hooked, the one there is the
/// kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returns {
    /// Nothing that is known of.
    Kept,
    /// It looks for handlers of exceptions or panics by them, and ends if it finds none.
    Read,
    /// It moves stacks to other places by them.
    Moved,
}

impl Returns {
    /// By the sections that compilers make for it; of a file that cannot be read, nothing is known.
    fn of(file: &File) -> Self {
        let bytes = Bytes::File(file);
        let sections =
            elf::read_headers(bytes).and_then(|headers| headers.sections(bytes)).unwrap_or_default();
        let has = |end: &[u8]| sections.iter().any(|section| section.name.ends_with(end));
        match (has(b".gopclntab"), has(b".gcc_except_table")) {
            (true, _) => Self::Moved,
            (_, true) => Self::Read,
            _ => Self::Kept,
        }
    }
}

/// Why there is no place, and what mends it.
struct Refused {
    what: String,
    mend: String,
}

impl Refused {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), mend: String::new() }
    }
}

/// The offset in the file of a place so many bytes into a function.
fn place_in(file: &File, symbol: &str, into: u64) -> Result<u64, Refused> {
    let bytes = Bytes::File(file);
    let unreadable = |error: elf::ElfError| Refused::new(format!("the file cannot be read: {error}"));
    let headers = elf::read_headers(bytes).map_err(unreadable)?;
    let address = match symbol.strip_prefix("0x") {
        Some(_) => number(symbol).ok_or_else(|| Refused::new("the address is not a number"))?,
        None => {
            let sections = headers.sections(bytes).map_err(unreadable)?;
            let named = functions::named(bytes, &headers, &sections, symbol).map_err(unreadable)?;
            one_of(&named, symbol, into)?
        }
    };
    let at = address.checked_add(into).and_then(|address| headers.offset_of_address(address));
    at.ok_or_else(|| Refused::new("the file has no code there"))
}

/// The address of the function that is meant.
fn one_of(named: &functions::Named, symbol: &str, into: u64) -> Result<u64, Refused> {
    let exported: Vec<_> = named.functions.iter().filter(|function| function.is_exported).collect();
    let all: Vec<_> = named.functions.iter().collect();
    let candidates = if exported.is_empty() { all } else { exported };
    match candidates[..] {
        [function] if function.is_resolver => Err(Refused {
            what: "which function has that name is decided when a program is loaded".to_owned(),
            mend: "name that function, for example the variant for this CPU".to_owned(),
        }),
        [function] if function.size != 0 && into >= function.size => {
            Err(Refused::new(format!("the function has {} bytes only", function.size)))
        }
        [function] => Ok(function.address),
        [] if named.others.is_empty() => Err(Refused {
            what: "the file has no names of functions".to_owned(),
            mend: "name a place by its address: 0x...".to_owned(),
        }),
        [] => {
            let near = near(symbol, named.others.iter().map(String::as_str));
            let mend = if near.is_empty() {
                format!(
                    "it has {} others; names are those of the symbol table, as `nm` shows them",
                    named.others.len()
                )
            } else {
                format!("near: {}", near.join(", "))
            };
            Err(Refused { what: "the file has no function of that name".to_owned(), mend })
        }
        _ => {
            let places: Vec<String> =
                candidates.iter().take(8).map(|function| format!("{:#x}", function.address)).collect();
            Err(Refused {
                what: format!("the file has {} functions of that name", candidates.len()),
                mend: format!("name one by its address: {}", places.join(", ")),
            })
        }
    }
}

/// Decimal, or hexadecimal with 0x.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') {
        return None;
    }
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::functions::{Function, Named};

    fn function(address: u64, is_exported: bool) -> Function {
        Function { address, size: 16, is_resolver: false, is_exported }
    }

    fn found(functions: Vec<Function>, into: u64) -> Result<u64, String> {
        let others = if functions.is_empty() { vec!["other".to_owned()] } else { Vec::new() };
        one_of(&Named { functions, others }, "othr", into)
            .map_err(|refused| format!("{}; {}", refused.what, refused.mend))
    }

    #[test]
    fn a_name_is_of_one_function_or_refused() {
        assert_eq!(found(vec![function(0x1000, false)], 0), Ok(0x1000));
        assert_eq!(found(vec![function(0x1000, false), function(0x2000, true)], 15), Ok(0x2000));
        for (functions, into, part) in [
            (vec![function(0x1000, false), function(0x2000, false)], 0, "0x1000, 0x2000"),
            (vec![function(0x1000, true)], 16, "16 bytes only"),
            (vec![Function { is_resolver: true, ..function(0x1000, true) }], 0, "when a program is loaded"),
            (vec![], 0, "near: other"),
        ] {
            let error = found(functions, into).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let none = one_of(&Named::default(), "x", 0).unwrap_err();
        assert!(none.what.contains("no names of functions"));
    }

    #[test]
    fn what_is_done_with_returns_is_seen_from_the_sections() {
        // Panics of this test are caught.
        assert_eq!(Returns::of(&File::open("/proc/self/exe").unwrap()), Returns::Read);
        assert_eq!(Returns::of(&File::open("/proc/self/status").unwrap()), Returns::Kept);
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!([number("16"), number("0x10")], [Some(16); 2]);
        assert_eq!([number(""), number("0x"), number("+1"), number("0x+1"), number("-1")], [None; 5]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, part) in [
            ("malloc", "no path and function"),
            ("/bin/sh:", "no path and function"),
            ("/none/such:f", "No such file"),
            ("/dev/null:f", "not a regular file"),
            ("/proc/self/exe:profiler_none_such", "no function of that name"),
            ("/proc/self/exe:main+x", "the offset is not a number"),
            ("/proc/self/exe:0x1", "no code there"),
        ] {
            let error = resolve(("uprobe:", false), text, None, 0).unwrap_err();
            assert!(error.exit == Exit::Usage && error.message.contains(part), "{text}: {error}");
        }
        let error = resolve(("uretprobe:", true), "/proc/self/exe:main+4", None, 0).unwrap_err();
        assert!(error.message.contains("no offset"), "{error}");
        let error = resolve_time("/proc/self/exe:main+4", None, 0).unwrap_err();
        assert!(error.message.contains("-e uspan:/proc/self/exe:main+4: a function returns"), "{error}");
    }
}
