//! Names of kernel addresses from /proc/kallsyms, for a sorted set of addresses at once.
//!
//! The file has some 200,000 lines and is streamed: for each address only the best candidate so far is kept. It states
//! no sizes, so a function reaches to the next symbol of any kind, and not out of its part: the kernel's own text ends
//! at `_etext`, a module's where /proc/modules says, a BPF program's at most [`MAX_BPF_LEN`] behind its start.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead, BufReader},
};

/// A BPF program is not longer than this: the largest that the verifier admits has a million instructions, but those
/// that exist have some thousand; the limit keeps an address far behind the last program from getting its name.
const MAX_BPF_LEN: u64 = 128 << 10;
/// Longest line read; `KSYM_NAME_LEN` is 512.
const MAX_LINE: usize = 4096;

/// A named kernel address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelName {
    /// Name of the function (raw bytes).
    pub name: Vec<u8>,
    /// Address of its first byte.
    pub start: u64,
    /// Module in brackets without the brackets: `ext4`, `bpf`; `None`: the kernel itself.
    pub module: Option<Vec<u8>>,
}

/// What kallsyms says about the addresses asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelNames {
    /// One answer per address.
    Found(Vec<Option<KernelName>>),
    /// All addresses are shown as zero, or the file may not be read.
    Hidden,
}

/// A line of /proc/modules: name, text address, size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    name: Vec<u8>,
    start: u64,
    size: u64,
}

/// Looks up sorted absolute addresses in the running kernel's tables.
pub fn find(addresses: &[u64]) -> KernelNames {
    let modules = read_modules().unwrap_or_default();
    match File::open("/proc/kallsyms") {
        Ok(file) => parse(BufReader::with_capacity(256 << 10, file), &modules, addresses),
        Err(_) => KernelNames::Hidden,
    }
}

/// A number that is another one when the kernel has other modules, or has them elsewhere.
pub fn modules() -> u64 {
    let mut modules = read_modules().unwrap_or_default();
    // Their order is that of their loading.
    modules.sort_unstable_by_key(|module| module.start);
    let mut hasher = DefaultHasher::new();
    for LoadedModule { name, start, size } in &modules {
        (name, start, size).hash(&mut hasher);
    }
    hasher.finish()
}

fn read_modules() -> io::Result<Vec<LoadedModule>> {
    let text = std::fs::read("/proc/modules")?;
    Ok(text.split(|&b| b == b'\n').filter_map(parse_module).collect())
}

/// `ext4 733184 1 - Live 0xffffffffc0a00000 (E)`.
fn parse_module(line: &[u8]) -> Option<LoadedModule> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.split_whitespace();
    let name = fields.next()?.as_bytes().to_vec();
    let size = fields.next()?.parse().ok()?;
    let start = u64::from_str_radix(fields.nth(3)?.strip_prefix("0x")?, 16).ok()?;
    Some(LoadedModule { name, start, size })
}

/// Lowest rank of a symbol that names code.
const RANK_TEXT: u8 = 1;

#[derive(Default)]
struct Best {
    start: u64,
    rank: u8,
    name: Vec<u8>,
    module: Vec<u8>,
}

/// What kallsyms says of functions of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// How many there are.
    pub number: usize,
    /// If there is none: the names of all others, sorted.
    pub others: Vec<String>,
}

/// Looks for functions of exactly that name, in the kernel and in its modules.
///
/// # Errors
/// If /proc/kallsyms cannot be read.
pub fn functions(name: &str) -> io::Result<Functions> {
    let open = || Ok::<_, io::Error>(BufReader::with_capacity(256 << 10, File::open("/proc/kallsyms")?));
    let number = each_function(open()?, |found| found == name.as_bytes())?;
    let mut others = Vec::new();
    if number == 0 {
        let mut keep = |found: &[u8]| {
            others.extend(std::str::from_utf8(found).ok().map(str::to_owned));
            true
        };
        each_function(open()?, &mut keep)?;
    }
    others.sort_unstable();
    others.dedup();
    Ok(Functions { number, others })
}

/// Counts the functions of the kernel and its modules that are `wanted`.
fn each_function(mut text: impl BufRead, mut wanted: impl FnMut(&[u8]) -> bool) -> io::Result<usize> {
    let (mut line, mut number) = (Vec::with_capacity(256), 0);
    loop {
        line.clear();
        if io::Read::take(&mut text, MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(number);
        }
        let is_function = |symbol: &Symbol<'_>| {
            // Code that the kernel generates has names there too.
            symbol.rank() > RANK_TEXT && ![&b"bpf"[..], b"ftrace", b"kprobes"].contains(&symbol.module)
        };
        let function = parse_line(&line).filter(is_function);
        number += usize::from(function.is_some_and(|function| wanted(function.name)));
    }
}

/// The same on any text in the format of /proc/kallsyms.
pub fn parse(mut text: impl BufRead, modules: &[LoadedModule], addresses: &[u64]) -> KernelNames {
    debug_assert!(addresses.is_sorted());
    let mut best: Vec<Option<Best>> = Vec::new();
    best.resize_with(addresses.len(), || None);
    let (mut any_address, mut text_end) = (false, None);
    let mut line = Vec::with_capacity(256);
    loop {
        line.clear();
        // A read error in the middle leaves what was found so far.
        if io::Read::take(&mut text, MAX_LINE as u64).read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            break;
        }
        let Some(symbol) = parse_line(&line) else { continue };
        any_address |= symbol.start != 0;
        if symbol.name == b"_etext" {
            text_end = Some(symbol.start);
        }
        let first = addresses.partition_point(|&address| address < symbol.start);
        if let Some(slot) = best.get_mut(first) {
            symbol.offer(slot);
        }
    }
    if !any_address {
        return KernelNames::Hidden;
    }
    let mut found = Vec::with_capacity(addresses.len());
    let mut carried: Option<Best> = None;
    for (slot, &address) in best.into_iter().zip(addresses) {
        carried = slot.or(carried);
        let covering = carried
            .as_ref()
            .filter(|best| best.rank >= RANK_TEXT && reaches(best, address, modules, text_end));
        found.push(covering.map(|best| KernelName {
            name: best.name.clone(),
            start: best.start,
            module: (!best.module.is_empty()).then(|| best.module.clone()),
        }));
    }
    KernelNames::Found(found)
}

fn reaches(best: &Best, address: u64, modules: &[LoadedModule], text_end: Option<u64>) -> bool {
    if best.module.is_empty() {
        // Text behind `_etext` is that of init, freed after boot.
        return text_end.is_none_or(|end| address < end);
    }
    match modules.iter().find(|module| module.name == best.module) {
        Some(module) => address.checked_sub(module.start).is_some_and(|offset| offset < module.size),
        // "bpf" and the kernel's other generated code ("__builtin__ftrace", "__builtin__kprobes").
        None => address - best.start < MAX_BPF_LEN,
    }
}

struct Symbol<'a> {
    start: u64,
    kind: u8,
    name: &'a [u8],
    module: &'a [u8],
}

impl Symbol<'_> {
    /// Of symbols with the same address the highest is taken: functions before the linker's marks of where a part of
    /// the text begins, and these before data.
    fn rank(&self) -> u8 {
        let is_mark = [&b"text_start"[..], b"text_end", b"_stext", b"_text", b"_etext"];
        match self.kind {
            b't' | b'T' | b'w' | b'W' if is_mark.iter().any(|mark| self.name.ends_with(mark)) => RANK_TEXT,
            b't' | b'w' | b'W' => RANK_TEXT + 1,
            b'T' => RANK_TEXT + 2,
            _ => 0,
        }
    }

    /// Takes the slot if this symbol starts later, or names the same start better.
    fn offer(&self, slot: &mut Option<Best>) {
        let rank = self.rank();
        if slot.as_ref().is_none_or(|old| (self.start, rank) > (old.start, old.rank)) {
            let best = slot.get_or_insert_default();
            best.start = self.start;
            best.rank = rank;
            best.name.clear();
            best.name.extend_from_slice(self.name);
            best.module.clear();
            best.module.extend_from_slice(self.module);
        }
    }
}

/// `ffffffff81000000 T _text` or `ffffffffc0001000 t helper\t[ext4]`.
fn parse_line(line: &[u8]) -> Option<Symbol<'_>> {
    let space = line.iter().position(|&b| b == b' ')?;
    let digits = &line[..space];
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut start = 0;
    for &digit in digits {
        start = start << 4 | u64::from((digit as char).to_digit(16)?);
    }
    let kind = *line.get(space + 1)?;
    let rest = line.get(space + 3..)?.trim_ascii_end();
    let name_end = rest.iter().position(|&b| b == b'\t').unwrap_or(rest.len());
    let module = rest[name_end..].trim_ascii();
    let module = module.strip_prefix(b"[").and_then(|module| module.strip_suffix(b"]")).unwrap_or_default();
    let module = module.strip_prefix(b"__builtin__").unwrap_or(module);
    let name = &rest[..name_end];
    (!name.is_empty()).then_some(Symbol { start, kind, name, module })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 t local_alias
ffffffff81000100 t one
ffffffff81000200 T two
ffffffff81000200 t two_alias
ffffffff81000300 T _etext
ffffffff82000000 D data
ffffffffc0001000 t init_it\t[ext4]
ffffffffc0001800 T ext4_write\t[ext4]
ffffffffc0009000 d ext4_data\t[ext4]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_probe\t[bpf]
ffffffffc0200000 t ftrace_trampoline\t[__builtin__ftrace]
";

    fn find_in(text: &str, addresses: &[u64]) -> Vec<Option<(String, Option<String>)>> {
        let modules = [parse_module(b"ext4 32768 1 - Live 0xffffffffc0001000 (E)").unwrap()];
        let KernelNames::Found(names) = parse(text.as_bytes(), &modules, addresses) else { panic!("hidden") };
        let string = |raw: Vec<u8>| String::from_utf8(raw).unwrap();
        names.into_iter().map(|name| name.map(|n| (string(n.name), n.module.map(string)))).collect()
    }

    fn named(name: &str, module: Option<&str>) -> Option<(String, Option<String>)> {
        Some((name.to_owned(), module.map(str::to_owned)))
    }

    #[test]
    fn addresses_belong_to_the_function_before_them() {
        let cases = [
            (0xffff_ffff_8000_0000, None),
            (0xffff_ffff_8100_0000, named("local_alias", None)),
            (0xffff_ffff_8100_01ff, named("one", None)),
            (0xffff_ffff_8100_0200, named("two", None)),
            (0xffff_ffff_8100_0300, None),
            (0xffff_ffff_8200_0010, None),
            (0xffff_ffff_c000_1fff, named("ext4_write", Some("ext4"))),
            (0xffff_ffff_c000_9001, None),
            (0xffff_ffff_c010_0010, named("bpf_prog_6deef7357e7b4530_probe", Some("bpf"))),
            (0xffff_ffff_c01f_0000, None),
            (0xffff_ffff_c020_0001, named("ftrace_trampoline", Some("ftrace"))),
        ];
        let addresses: Vec<u64> = cases.iter().map(|(address, _)| *address).collect();
        for (found, (address, expected)) in find_in(TEXT, &addresses).into_iter().zip(cases) {
            assert_eq!(found, expected, "{address:#x}");
        }
    }

    #[test]
    fn functions_are_those_of_the_kernel_and_of_modules() {
        let mut names = Vec::new();
        let number = each_function(TEXT.as_bytes(), |name| {
            names.push(String::from_utf8(name.to_vec()).unwrap());
            name == b"two"
        });
        assert_eq!(number.unwrap(), 1);
        assert_eq!(names, ["local_alias", "one", "two", "two_alias", "init_it", "ext4_write"]);
    }

    #[test]
    fn the_order_of_lines_does_not_matter() {
        let mut lines: Vec<&str> = TEXT.lines().collect();
        let addresses = [0xffff_ffff_8100_0001, 0xffff_ffff_8100_0101, 0xffff_ffff_8100_0201];
        let expected = find_in(TEXT, &addresses);
        lines.reverse();
        assert_eq!(find_in(&lines.join("\n"), &addresses), expected);
    }

    #[test]
    fn hidden_addresses_are_told() {
        let text = "0000000000000000 T _stext\n0000000000000000 t one\n";
        assert_eq!(parse(text.as_bytes(), &[], &[0xffff_ffff_8100_0000]), KernelNames::Hidden);
        assert_eq!(parse(&b""[..], &[], &[1]), KernelNames::Hidden);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: Vec<u8>, mut addresses: Vec<u64>) {
            addresses.sort_unstable();
            parse(&text[..], &[], &addresses);
        }

        /// Against the obvious way: the greatest start that is not above the address.
        #[test]
        fn like_a_linear_search(starts in prop::collection::btree_set(1u64..10_000, 1..50), mut addresses in prop::collection::vec(0u64..12_000, 1..50)) {
            addresses.sort_unstable();
            let text: String = starts.iter().rev().map(|start| format!("{start:016x} T f{start}\n")).collect();
            let KernelNames::Found(names) = parse(text.as_bytes(), &[], &addresses) else { panic!() };
            for (address, name) in addresses.iter().zip(names) {
                let expected = starts.iter().rfind(|&start| start <= address).map(|start| format!("f{start}").into_bytes());
                prop_assert_eq!(name.map(|name| name.name), expected);
            }
        }

        #[test]
        fn any_module_line_is_read_without_panic(line: Vec<u8>) {
            parse_module(&line);
        }
    }
}
