//! The sections of the report: ticks by process, thread, module and symbol. A tick belongs to its leaf frame, inlined
//! functions expanded.

use std::io::{self, Write};

use super::tree::{Labels, Node};
use crate::{
    model::Unit,
    render::{RenderOptions, tally::Tally, units},
};

/// A level of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Processes.
    Process,
    /// Threads.
    Thread,
    /// Modules.
    Module,
    /// Functions.
    Symbol,
}

impl Level {
    const fn tag(self) -> &'static str {
        match self {
            Self::Process => "PID",
            Self::Thread => "TID",
            Self::Module => "MOD",
            Self::Symbol => "SYM",
        }
    }
}

/// A section of the report.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// Name, for `--section`.
    pub name: &'static str,
    /// Title in the report.
    pub title: &'static str,
    levels: &'static [Level],
}

impl Section {
    const fn new(name: &'static str, title: &'static str, levels: &'static [Level]) -> Self {
        Self { name, title, levels }
    }

    /// The section of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SECTIONS.iter().find(|section| section.name == name)
    }

    /// Its levels, outermost first.
    #[cfg(test)]
    pub const fn levels(&self) -> &'static [Level] {
        self.levels
    }

    /// Whether the options ask for it.
    pub fn is_shown(&'static self, options: &RenderOptions) -> bool {
        options.sections.is_empty() || options.sections.contains(&self)
    }
}

/// All sections, in the order of the report.
pub const SECTIONS: &[Section] = {
    use Level::{Module, Process, Symbol, Thread};
    &[
        Section::new("process", "Process", &[Process]),
        Section::new("process-module", "Process_Module", &[Process, Module]),
        Section::new("process-module-symbol", "Process_Module_Symbol", &[Process, Module, Symbol]),
        Section::new("process-thread", "Process_Thread", &[Process, Thread]),
        Section::new("process-thread-module", "Process_Thread_Module", &[Process, Thread, Module]),
        Section::new(
            "process-thread-module-symbol",
            "Process_Thread_Module_Symbol",
            &[Process, Thread, Module, Symbol],
        ),
        Section::new("module", "Module", &[Module]),
        Section::new("module-symbol", "Module_Symbol", &[Module, Symbol]),
    ]
};

/// Columns of the process section beside the ticks: where they were spent.
const SPLIT: [&str; 4] = ["KERNEL", "USER", "SHARED", "OTHER"];

/// Writes the sections that the options ask for.
pub fn write(tally: &Tally<'_>, options: &RenderOptions, out: &mut dyn Write) -> io::Result<()> {
    let labels = Labels::new(tally, options);
    for section in SECTIONS.iter().filter(|section| section.is_shown(options)) {
        let mut printer = Printer {
            section,
            unit: tally.sample_type.unit,
            total: tally.total,
            clip: options.clip_percent,
            clipped: (0, 0),
            out: &mut *out,
        };
        printer.banner()?;
        printer.children(&labels.tree(section.levels), 0)?;
        printer.remainder()?;
    }
    Ok(())
}

struct Printer<'a> {
    section: &'static Section,
    unit: Unit,
    total: i64,
    clip: f64,
    /// Lines that were not shown although their parent was, and their sum.
    clipped: (usize, i64),
    out: &'a mut dyn Write,
}

impl Printer<'_> {
    /// The split makes sense once, per process.
    fn has_split(&self) -> bool {
        self.section.levels == [Level::Process]
    }

    fn banner(&mut self) -> io::Result<()> {
        let rule = "=".repeat(60);
        writeln!(self.out, "\n{rule}\n  {}\n{rule}\n", self.section.title)?;
        let ticks = match self.unit {
            Unit::Count => "TKS",
            Unit::Nanoseconds => "MS",
            Unit::Bytes => "KIB",
        };
        write!(self.out, " {:<6} {ticks:>10} {:>6} ", "LAB", "%%%")?;
        if self.has_split() {
            SPLIT.iter().try_for_each(|column| write!(self.out, " {column:>9}"))?;
        }
        writeln!(self.out, " NAMES")
    }

    fn children(&mut self, node: &Node, depth: usize) -> io::Result<()> {
        let tag = self.section.levels.get(depth).map_or("", |level| level.tag());
        for child in &node.children {
            let percent = units::percent(child.value, self.total);
            if percent < self.clip {
                self.clipped.0 += 1;
                self.clipped.1 = self.clipped.1.saturating_add(child.value);
                continue;
            }
            let value = units::value(child.value, self.unit);
            let label = format!("{:depth$}{tag}", "");
            write!(self.out, " {label:<6} {value:>10} {percent:>6.2} ")?;
            if self.has_split() {
                let parts = child.split.map(|part| units::value(part, self.unit));
                parts.iter().try_for_each(|part| write!(self.out, " {part:>9}"))?;
            }
            writeln!(self.out, " {:depth$}{}", "", child.label)?;
            self.children(child, depth + 1)?;
        }
        Ok(())
    }

    /// What the clipping level left out: nothing vanishes.
    fn remainder(&mut self) -> io::Result<()> {
        let (lines, value) = self.clipped;
        if lines == 0 {
            return Ok(());
        }
        let percent = units::percent(value, self.total);
        let value = units::value(value, self.unit);
        writeln!(
            self.out,
            " ...    {value:>10} {percent:>6.2}  in {} lines below the clipping level",
            units::count(lines as i64)
        )
    }
}
