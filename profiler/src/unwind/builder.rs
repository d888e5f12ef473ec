//! Makes tables off the hot path: a thread of its own that reads files, one after the other, so that memory stays
//! bounded by the largest of them.

use std::{
    fs::File,
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Instant,
};

use profiler_common::unwind::rule::Rule;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    cache::Cache,
    eh_frame::{self, TableError},
    table::Table,
};
use crate::elf::Bytes;

/// Where the code of a module can be read.
#[derive(Debug)]
pub enum Source {
    /// In a file.
    File(File),
    /// In memory: the vDSO's image.
    Memory(Vec<u8>),
}

/// A table that is wanted.
#[derive(Debug)]
pub struct Job {
    /// The module's number.
    pub module: u32,
    /// Its code.
    pub source: Source,
}

/// A table that was made.
#[derive(Debug)]
pub struct Built {
    /// The module's number.
    pub module: u32,
    /// The table, or why there is none.
    pub table: Result<Table, TableError>,
    /// It covers less than half of the code.
    pub is_sparse: bool,
    /// Time it took, ns.
    pub took_ns: u64,
}

/// The thread, and the way to it and back.
pub struct Builder {
    jobs: Sender<Job>,
    built: UnboundedReceiver<Built>,
}

impl Builder {
    /// Starts the thread. It ends with the builder, behind the table that it is making.
    pub fn start() -> io::Result<Self> {
        let (jobs, wanted) = channel();
        let (done, built) = unbounded_channel();
        thread::Builder::new().name("tables".to_owned()).spawn(move || work(&wanted, &done))?;
        Ok(Self { jobs, built })
    }

    /// Asks for a table.
    pub fn want(&self, job: Job) {
        // The thread lives as long as `self` does, but for a panic in it, after which no table comes any more.
        _ = self.jobs.send(job);
    }

    /// Waits for the next table. `None`: no further one will come.
    pub async fn next(&mut self) -> Option<Built> {
        self.built.recv().await
    }
}

fn work(wanted: &Receiver<Job>, done: &UnboundedSender<Built>) {
    // Without it, large files' tables are made anew in every run.
    let cache = Cache::open().inspect_err(|error| log::info!("no cache of unwind tables: {error}")).ok();
    while let Ok(job) = wanted.recv() {
        let begin = Instant::now();
        let table = build(&job.source, cache.as_ref());
        let is_sparse = table.as_ref().is_ok_and(is_sparse);
        let took_ns = begin.elapsed().as_nanos() as u64;
        if done.send(Built { module: job.module, table, is_sparse, took_ns }).is_err() {
            return;
        }
    }
}

fn build(source: &Source, cache: Option<&Cache>) -> Result<Table, TableError> {
    match (source, cache) {
        (Source::File(file), Some(cache)) => cache.table(file),
        (Source::File(file), None) => eh_frame::build(Bytes::File(file)).map(|(table, _)| table),
        (Source::Memory(image), _) => eh_frame::build(Bytes::Memory(image)).map(|(table, _)| table),
    }
}

/// Whether less than half of the code between the table's first row and its last has a rule. Browsers are built so: with
/// frame pointers, and unwind information only for what comes from elsewhere.
fn is_sparse(table: &Table) -> bool {
    let (mut covered, mut all, mut last) = (0u64, 0u64, None);
    for (address, rule) in table.iter() {
        if let Some((start, before)) = last.replace((address, rule)) {
            let len = address.saturating_sub(start);
            all += len;
            covered += if before == Rule::NONE { 0 } else { len };
        }
    }
    covered < all / 2
}

#[cfg(test)]
mod tests {
    use profiler_common::unwind::{Arch, row::Row};

    use super::*;

    fn table(rows: &[(u16, u16)]) -> Table {
        Table {
            arch: Arch::X86_64,
            first_page: 1,
            pages: vec![0, rows.len() as u32],
            rows: rows.iter().map(|&(offset, rule)| Row::new(offset, rule).0).collect(),
            rules: vec![Rule::NONE.0, Rule::END.0],
        }
    }

    #[test]
    fn a_table_of_few_functions_is_sparse() {
        assert!(is_sparse(&table(&[(0, 0), (0x1000, 1), (0x1100, 0), (0x8000, 1), (0x8010, 0)])));
        assert!(!is_sparse(&table(&[(0, 1), (0x1000, 0), (0x1010, 1), (0x2000, 0)])));
        assert!(!is_sparse(&table(&[])));
    }
}
