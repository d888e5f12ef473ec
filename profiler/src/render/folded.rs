//! Folded stacks: `process;[thread;]frame;frame count`, one line per distinct stack, root first.
//!
//! The format has no quoting, so names give way: `;` becomes `:`; where a line would start like a comment (`# `) or a
//! stack would end like a number (flamegraph tools then read two counts), the space becomes `_`.
//! Kinds are said behind the name as flamegraph tools expect them: `_[k]` kernel, `_[i]` inlined, `_[j]` JIT-compiled;
//! and `_[0]` interpreted.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use super::{
    RenderError, RenderOptions,
    tally::{Tally, no_stack_label, process_label, thread_label},
};
use crate::model::{FrameKind, Profile, ThreadId};

/// Most bytes of names of all stacks. 30 s of a whole busy machine are some 10 MB.
const MAX_BYTES: usize = 1 << 30;

/// A name in a stack, ordered by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The text, without an annotation.
    pub text: String,
    /// The frame's kind; `None`: a process or thread.
    pub kind: Option<FrameKind>,
}

/// Distinct stacks with their values.
pub struct Folded {
    /// All names, in order.
    pub names: Vec<Name>,
    /// Stacks in order, as indices into `names`, first frame first; values are above 0.
    pub stacks: Vec<(Vec<u32>, u64)>,
}

impl Folded {
    /// Folds a profile.
    ///
    /// # Errors
    /// [`RenderError::NoSampleType`].
    pub fn new(profile: &Profile, options: &RenderOptions) -> Result<Self, RenderError> {
        let tally = Tally::new(profile, options)?;
        let mut index: HashMap<Name, u32> = HashMap::new();
        let mut stacks: HashMap<Vec<u32>, u64> = HashMap::new();
        for cell in &tally.cells {
            // Differences of profiles, which other tools store, have values below 0: they have no place here.
            let Some(value) = u64::try_from(cell.value).ok().filter(|&value| value != 0) else { continue };
            let mut stack = owners(profile, cell.thread, options);
            stack.extend(
                profile
                    .frames(cell.stack)
                    .rev()
                    .map(|frame| Name { text: frame.function.name.clone(), kind: Some(frame.kind) }),
            );
            let definition = &profile.stacks[cell.stack.index()];
            if definition.locations.is_empty() {
                let text = no_stack_label(definition.end).to_owned();
                stack.push(Name { text, kind: Some(FrameKind::Unknown) });
            }
            if options.inverted {
                stack.reverse();
            }
            let mut intern = |name| {
                let next = index.len() as u32;
                *index.entry(name).or_insert(next)
            };
            let sum = stacks.entry(stack.into_iter().map(&mut intern).collect()).or_default();
            *sum = sum.saturating_add(value);
        }
        Ok(Self::ordered(index, stacks))
    }

    /// Renumbers the names so that the order of the numbers is that of the texts.
    fn ordered(index: HashMap<Name, u32>, stacks: HashMap<Vec<u32>, u64>) -> Self {
        let index: BTreeMap<Name, u32> = index.into_iter().collect();
        let mut rank = vec![0; index.len()];
        index.values().zip(0..).for_each(|(&old, new)| rank[old as usize] = new);
        let renumber = |stack: Vec<u32>| stack.into_iter().map(|name| rank[name as usize]).collect();
        let mut stacks: Vec<(Vec<u32>, u64)> = stacks.into_iter().map(|(s, n)| (renumber(s), n)).collect();
        stacks.sort_unstable();
        Self { names: index.into_keys().collect(), stacks }
    }
}

/// The process, and the thread if threads are apart.
fn owners(profile: &Profile, thread: ThreadId, options: &RenderOptions) -> Vec<Name> {
    let merge = options.merge_by_name || !options.per_thread;
    let mut owners = vec![Name { text: process_label(profile, thread, merge), kind: None }];
    if options.per_thread {
        owners.push(Name { text: thread_label(profile, thread, merge), kind: None });
    }
    owners
}

/// The annotation of a kind; the usual kinds, native, stubs and unknown, have none.
pub const fn annotation(kind: Option<FrameKind>) -> &'static str {
    match kind {
        Some(FrameKind::Kernel) => "_[k]",
        Some(FrameKind::Inlined) => "_[i]",
        Some(FrameKind::Jit) => "_[j]",
        Some(FrameKind::Interpreted) => "_[0]",
        Some(FrameKind::Baseline) => "_[1]",
        Some(FrameKind::Native | FrameKind::Stub | FrameKind::Unknown) | None => "",
    }
}

/// A stack of already separator-free names as the format allows it.
pub fn line(names: &[&str]) -> String {
    let mut line = names.join(";");
    if line.starts_with("# ") {
        line.replace_range(1..2, "_");
    }
    if let Some((_, end)) = line.rsplit_once(' ')
        && end.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        let at = line.len() - end.len() - 1;
        line.replace_range(at..=at, "_");
    }
    line
}

/// A name without separators. Line ends cannot occur: names are cleaned where they enter the model.
pub fn escape(name: &str) -> String {
    let name = name.replace(';', ":");
    let trimmed = name.trim();
    if trimmed.is_empty() { "_".to_owned() } else { trimmed.to_owned() }
}

/// Refuses stacks whose names together are too large to be held in memory; `texts` are those of the names.
///
/// # Errors
/// [`RenderError::TooLarge`].
pub fn check_size(folded: &Folded, texts: &[String]) -> Result<(), RenderError> {
    let names = folded.stacks.iter().flat_map(|(stack, _)| stack);
    let bytes = names.fold(0usize, |sum, &name| sum.saturating_add(texts[name as usize].len() + 1));
    if bytes > MAX_BYTES { Err(RenderError::TooLarge { bytes }) } else { Ok(()) }
}

/// inferno sorts whole lines and then insists that the stacks without their counts are sorted, which `a (1) 5` before
/// `a 5` is not. Where a stack goes on behind another one with a space and a character that sorts like a count, that
/// space becomes `_`. `lines` are sorted by stack.
pub fn keep_order<T>(lines: &mut [(String, T)]) {
    // The stacks before the current one that it starts with, shortest first.
    let mut prefixes: Vec<String> = Vec::new();
    for (line, _) in lines {
        while prefixes.last().is_some_and(|prefix| !line.starts_with(prefix.as_str())) {
            prefixes.pop();
        }
        let original = line.clone();
        for at in prefixes.iter().map(String::len) {
            if let [b' ', next, ..] = &original.as_bytes()[at..]
                && *next <= b'9'
            {
                line.replace_range(at..=at, "_");
            }
        }
        prefixes.push(original);
    }
}

/// Writes folded stacks.
///
/// # Errors
/// Those of writing, or of the options.
pub fn write(profile: &Profile, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let mut lines = lines(profile, options)?;
    keep_order(&mut lines);
    lines.sort_unstable();
    // Names that were told apart by what was replaced may be one now.
    let mut lines = lines.into_iter().peekable();
    while let Some((line, mut value)) = lines.next() {
        while let Some((_, more)) = lines.next_if(|(next, _)| *next == line) {
            value = value.saturating_add(more);
        }
        writeln!(out, "{line} {value}")?;
    }
    Ok(())
}

/// Stacks as lines with their values, in order; a line may be there several times.
///
/// # Errors
/// Those of the options.
pub fn lines(profile: &Profile, options: &RenderOptions) -> Result<Vec<(String, u64)>, RenderError> {
    let folded = Folded::new(profile, options)?;
    let annotate = |name: &Name| if options.annotate { annotation(name.kind) } else { "" };
    let texts: Vec<_> = folded.names.iter().map(|name| escape(&name.text) + annotate(name)).collect();
    check_size(&folded, &texts)?;
    let mut lines: Vec<(String, u64)> = Vec::with_capacity(folded.stacks.len());
    for (stack, value) in &folded.stacks {
        let names: Vec<_> = stack.iter().map(|&name| texts[name as usize].as_str()).collect();
        lines.push((line(&names), *value));
    }
    lines.sort_unstable();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::fixture;

    fn folded(profile: &Profile, options: &RenderOptions) -> String {
        let mut out = Vec::new();
        write(profile, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn kinds_are_annotated_and_processes_of_a_name_are_one() {
        let text = folded(&fixture::mixed(), &RenderOptions::default());
        assert!(text.contains("\ndate;__libc_start_main;__vdso_clock_gettime 90\n"), "{text}");
        assert!(text.contains(
            "java;start_thread;JavaThread::thread_main_inner();org.example.Server.loop_[0];read;do_syscall_64_[k];vfs_read_[k] 150\n"
        ));
        assert!(text.contains(
            ";java.util.HashMap.get_[j];java.util.HashMap.hash_[i];java.lang.String.hashCode_[j] 300\n"
        ));
    }

    #[test]
    fn threads_and_inversion_are_options() {
        let options =
            RenderOptions { per_thread: true, inverted: true, annotate: false, ..RenderOptions::default() };
        let text = folded(&fixture::mixed(), &options);
        assert!(text.contains("__vdso_clock_gettime;__libc_start_main;date (200);date (200) 30\n"), "{text}");
        let options = RenderOptions { per_thread: true, merge_by_name: true, ..RenderOptions::default() };
        assert!(folded(&fixture::mixed(), &options).contains("java;http-worker-1;start_thread;"));
    }

    #[test]
    fn names_cannot_break_lines() {
        assert_eq!(line(&["# a", "b 12"]), "#_a;b_12");
        assert_eq!(line(&["x 1.5"]), "x_1.5");
        assert_eq!(line(&["x ", "y"]), "x ;y");
        assert_eq!(escape(" a;b "), "a:b");
    }

    /// What inferno makes of the lines: the sum of all values, and no line left out.
    fn inferno_total(text: &str) -> u64 {
        let mut svg = Vec::new();
        inferno::flamegraph::from_lines(&mut inferno::flamegraph::Options::default(), text.lines(), &mut svg)
            .unwrap();
        let svg = String::from_utf8(svg).unwrap();
        let (_, rest) = svg.split_once("total_samples=\"").unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    }

    #[test]
    fn inferno_reads_every_line() {
        let text = folded(&fixture::mixed(), &RenderOptions::default());
        assert_eq!(inferno_total(&text), 1000);
    }

    #[test]
    fn names_that_sort_like_counts_are_read_by_inferno() {
        let mut builder = fixture::Builder::default();
        builder.0.sample_types = vec![crate::model::SampleType::new("samples", crate::model::Unit::Count)];
        let exe = fixture::module("/bin/x", crate::model::ModuleKind::Native);
        for leaf in ["f", "f (.cold)", "f (.cold) 1x", "f 1x", "g"] {
            let thread = fixture::thread(1, 1, "x", "x");
            builder.sample(
                thread,
                &[fixture::at(&exe, 1, leaf)],
                crate::model::StackEnd::Complete,
                0,
                vec![5],
            );
        }
        let text = folded(&builder.0, &RenderOptions::default());
        assert_eq!(inferno_total(&text), 25);
        assert_eq!(text, "x;f 5\nx;f_(.cold) 5\nx;f_(.cold)_1x 5\nx;f_1x 5\nx;g 5\n");
    }

    proptest! {
        #[test]
        fn any_profile_has_one_value_per_distinct_line(profile in fixture::profiles(), per_thread: bool, inverted: bool) {
            let options = RenderOptions { per_thread, inverted, ..RenderOptions::default() };
            let text = folded(&profile, &options);
            let mut seen = std::collections::HashSet::new();
            let mut sum = 0;
            for line in text.lines() {
                let (stack, value) = line.rsplit_once(' ').unwrap();
                prop_assert!(seen.insert(stack));
                sum += value.parse::<u64>().unwrap();
            }
            let tally = Tally::new(&profile, &options).unwrap();
            let want: u64 = tally.cells.iter().map(|cell| cell.value.max(0) as u64).sum();
            prop_assert_eq!(sum, want);
            if sum > 0 {
                prop_assert_eq!(inferno_total(&text), sum);
            }
        }
    }
}
