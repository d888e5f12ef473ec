//! Names of kernel addresses from /proc/kallsyms.
//!
//! The file has some 200,000 lines, which the kernel makes anew for each reader (some 50 ms): whoever asks again and again
//! keeps the [`Table`]. It states no sizes, so a function reaches to the next symbol of any kind, and not out of its part:
//! the kernel's own text ends at `_etext` (that of boot at `_einittext`), a module's where /proc/modules says, a BPF program's
//! at most [`MAX_BPF_LEN`] behind its start.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufRead, BufReader},
    ops::Range,
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

impl KernelNames {
    /// `None`: they are hidden.
    pub fn of(names: Option<Vec<Option<KernelName>>>) -> Self {
        names.map_or(Self::Hidden, Self::Found)
    }
}

/// A line of /proc/modules: name, text address, size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModule {
    name: Vec<u8>,
    start: u64,
    size: u64,
}

/// Looks up absolute addresses in the running kernel's tables.
pub fn find(addresses: &[u64]) -> KernelNames {
    let table = Table::read();
    KernelNames::of(table.map(|table| addresses.iter().map(|&address| table.find(address)).collect()))
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

/// Where a symbol begins, and what it is called.
#[derive(Debug)]
struct Entry {
    start: u64,
    /// Where its name is in the table's text; none of what is no code.
    name: u32,
    name_len: u16,
    /// Its place in the table's list of modules.
    module: u16,
}

/// All symbols at a moment: some 40 bytes each.
#[derive(Debug)]
pub struct Table {
    /// Ascending, one for each start.
    entries: Box<[Entry]>,
    text: Box<[u8]>,
    /// Names of modules; the kernel itself is the first, without a name.
    modules: Vec<Vec<u8>>,
    loaded: Vec<LoadedModule>,
    /// Where the kernel's own text ends.
    text_end: Option<u64>,
    /// From where to where there was text at boot. It is freed, but what boot has called from there and does not end is still
    /// below it: the idle task of the first CPU, in `start_kernel`.
    boot_text: Range<u64>,
}

impl Table {
    /// That of the running kernel; `None` if all addresses are shown as zero, or the file may not be read.
    pub fn read() -> Option<Self> {
        let loaded = read_modules().unwrap_or_default();
        let file = File::open("/proc/kallsyms").ok()?;
        Self::parse(BufReader::with_capacity(256 << 10, file), loaded)
    }

    /// The same of any text in that format.
    pub(super) fn parse(mut file: impl BufRead, loaded: Vec<LoadedModule>) -> Option<Self> {
        let mut entries: Vec<(Entry, u8)> = Vec::new();
        let mut text = Vec::new();
        let (mut modules, mut numbers) = (vec![Vec::new()], HashMap::from([(Vec::new(), 0)]));
        let (mut any_address, mut text_end, mut boot_text) = (false, None, 0..0);
        let mut line = Vec::with_capacity(256);
        loop {
            line.clear();
            // A read error in the middle leaves what was found so far.
            if io::Read::take(&mut file, MAX_LINE as u64).read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                break;
            }
            let Some(symbol) = parse_line(&line) else { continue };
            any_address |= symbol.start != 0;
            match symbol.name {
                b"_etext" => text_end = Some(symbol.start),
                b"_sinittext" => boot_text.start = symbol.start,
                b"_einittext" => boot_text.end = symbol.start,
                _ => {}
            }
            let rank = symbol.rank();
            let name = if rank >= RANK_TEXT { symbol.name } else { b"" };
            let module = *numbers.entry(symbol.module.to_vec()).or_insert_with(|| {
                modules.push(symbol.module.to_vec());
                modules.len() - 1
            });
            let (Ok(at), Ok(name_len), Ok(module)) =
                (u32::try_from(text.len()), u16::try_from(name.len()), u16::try_from(module))
            else {
                continue;
            };
            text.extend_from_slice(name);
            entries.push((Entry { start: symbol.start, name: at, name_len, module }, rank));
        }
        // Of those with the same start the first of the highest rank.
        entries.sort_by_key(|(entry, rank)| (entry.start, Reverse(*rank)));
        entries.dedup_by_key(|(entry, _)| entry.start);
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
        any_address.then(|| Self { entries, text: text.into(), modules, loaded, text_end, boot_text })
    }

    /// The function at an absolute address.
    pub fn find(&self, address: u64) -> Option<KernelName> {
        let behind = self.entries.partition_point(|entry| entry.start <= address);
        let entry = self.entries.get(behind.checked_sub(1)?)?;
        let name = self.text.get(entry.name as usize..)?.get(..usize::from(entry.name_len))?;
        let module = self.modules.get(usize::from(entry.module))?;
        if name.is_empty() || !self.reaches(entry.start, module, address) {
            return None;
        }
        let module = (!module.is_empty()).then(|| module.clone());
        Some(KernelName { name: name.to_vec(), start: entry.start, module })
    }

    fn reaches(&self, start: u64, module: &[u8], address: u64) -> bool {
        if module.is_empty() {
            // Behind `_etext` are data and what is mapped where text was.
            return self.text_end.is_none_or(|end| address < end) || self.boot_text.contains(&address);
        }
        match self.loaded.iter().find(|loaded| loaded.name == module) {
            Some(loaded) => address.checked_sub(loaded.start).is_some_and(|offset| offset < loaded.size),
            // "bpf" and the kernel's other generated code ("__builtin__ftrace", "__builtin__kprobes").
            None => address - start < MAX_BPF_LEN,
        }
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
        let is_mark = [&b"text_start"[..], b"text_end", b"_stext", b"_text", b"_etext", b"inittext"];
        match self.kind {
            b't' | b'T' | b'w' | b'W' if is_mark.iter().any(|mark| self.name.ends_with(mark)) => RANK_TEXT,
            b't' | b'w' | b'W' => RANK_TEXT + 1,
            b'T' => RANK_TEXT + 2,
            _ => 0,
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
ffffffff82100000 T _sinittext
ffffffff82100100 T start_kernel
ffffffff82100200 T _einittext
ffffffffc0001000 t init_it\t[ext4]
ffffffffc0001800 T ext4_write\t[ext4]
ffffffffc0009000 d ext4_data\t[ext4]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_probe\t[bpf]
ffffffffc0200000 t ftrace_trampoline\t[__builtin__ftrace]
";

    fn find_in(text: &str, addresses: &[u64]) -> Vec<Option<(String, Option<String>)>> {
        let modules = [parse_module(b"ext4 32768 1 - Live 0xffffffffc0001000 (E)").unwrap()];
        let table = Table::parse(text.as_bytes(), modules.into()).expect("hidden");
        let string = |raw: Vec<u8>| String::from_utf8(raw).unwrap();
        let names = addresses.iter().map(|&address| table.find(address));
        names.map(|name| name.map(|n| (string(n.name), n.module.map(string)))).collect()
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
            (0xffff_ffff_8210_0110, named("start_kernel", None)),
            (0xffff_ffff_8210_0200, None),
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
        assert_eq!(
            names,
            ["local_alias", "one", "two", "two_alias", "start_kernel", "init_it", "ext4_write"]
        );
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
        assert!(Table::parse(text.as_bytes(), Vec::new()).is_none());
        assert!(Table::parse(&b""[..], Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text: Vec<u8>, address: u64) {
            if let Some(table) = Table::parse(&text[..], Vec::new()) {
                table.find(address);
            }
        }

        /// Against the obvious way: the greatest start that is not above the address.
        #[test]
        fn like_a_linear_search(starts in prop::collection::btree_set(1u64..10_000, 1..50), addresses in prop::collection::vec(0u64..12_000, 1..50)) {
            let text: String = starts.iter().rev().map(|start| format!("{start:016x} T f{start}\n")).collect();
            let table = Table::parse(text.as_bytes(), Vec::new()).unwrap();
            for address in &addresses {
                let name = table.find(*address);
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
