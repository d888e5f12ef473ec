//! Makes tables off the hot path, in two threads: one for large files, one at a time, so that memory stays bounded by the
//! largest of them, and one for all others, which would wait for seconds behind a browser or a compiler. Each takes the
//! smallest that it has first.

use std::{
    collections::BTreeMap,
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

/// Bytes from which on a file is large: its table takes some 30 ms to make.
const LARGE: u64 = 8 << 20;

/// Where the code of a module can be read.
#[derive(Debug)]
pub enum Source {
    /// In a file.
    File(File),
    /// In memory: the vDSO's image.
    Memory(Vec<u8>),
}

impl Source {
    /// Its bytes; of a file that does not say, 0: whether it can be read is found when it is.
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.metadata().map_or(0, |metadata| metadata.len()),
            Self::Memory(image) => image.len() as u64,
        }
    }
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

/// The threads, and the way to them and back.
pub struct Builder {
    small: Sender<Job>,
    large: Sender<Job>,
    built: UnboundedReceiver<Built>,
}

impl Builder {
    /// Starts the threads. They end with the builder, behind the table that they are making.
    pub fn start() -> io::Result<Self> {
        let (done, built) = unbounded_channel();
        let start = |name: &str| {
            let (jobs, wanted) = channel();
            let done = done.clone();
            thread::Builder::new().name(name.to_owned()).spawn(move || work(wanted, &done))?;
            io::Result::Ok(jobs)
        };
        Ok(Self { small: start("tables")?, large: start("large tables")?, built })
    }

    /// Asks for a table.
    pub fn want(&self, job: Job) {
        let jobs = if job.source.len() < LARGE { &self.small } else { &self.large };
        // The threads live as long as `self` does, but for a panic in one, after which it gives no table any more.
        _ = jobs.send(job);
    }

    /// Waits for the next table. `None`: no further one will come.
    pub async fn next(&mut self) -> Option<Built> {
        self.built.recv().await
    }
}

fn work(wanted: Receiver<Job>, done: &UnboundedSender<Built>) {
    // Without it, large files' tables are made anew in every run.
    let cache = Cache::open().inspect_err(|error| log::info!("no cache of unwind tables: {error}")).ok();
    let mut queue = Queue { wanted, sorted: BTreeMap::new(), arrived: 0 };
    while let Some(job) = queue.next() {
        let begin = Instant::now();
        let table = build(&job.source, cache.as_ref());
        let is_sparse = table.as_ref().is_ok_and(is_sparse);
        let took_ns = begin.elapsed().as_nanos() as u64;
        if done.send(Built { module: job.module, table, is_sparse, took_ns }).is_err() {
            return;
        }
    }
}

/// Jobs that wait, by size, of one size in the order in which they came.
struct Queue {
    wanted: Receiver<Job>,
    sorted: BTreeMap<(u64, u64), Job>,
    arrived: u64,
}

impl Queue {
    /// The next job, waited for. `None`: there will be no other one.
    fn next(&mut self) -> Option<Job> {
        while let Ok(job) = self.wanted.try_recv() {
            self.sort(job);
        }
        if self.sorted.is_empty() {
            let job = self.wanted.recv().ok()?;
            self.sort(job);
        }
        self.sorted.pop_first().map(|(_, job)| job)
    }

    fn sort(&mut self, job: Job) {
        self.arrived += 1;
        self.sorted.insert((job.source.len(), self.arrived), job);
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
    fn the_smallest_is_made_first_and_equal_ones_in_their_order() {
        let (jobs, wanted) = channel();
        let mut queue = Queue { wanted, sorted: BTreeMap::new(), arrived: 0 };
        let ask = |module, len| jobs.send(Job { module, source: Source::Memory(vec![0; len]) }).unwrap();
        ask(1, 9);
        ask(2, 3);
        ask(3, 3);
        assert_eq!(queue.next().unwrap().module, 2);
        ask(4, 1);
        assert_eq!([queue.next(), queue.next(), queue.next()].map(|job| job.unwrap().module), [4, 3, 1]);
        drop(jobs);
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_table_of_few_functions_is_sparse() {
        assert!(is_sparse(&table(&[(0, 0), (0x1000, 1), (0x1100, 0), (0x8000, 1), (0x8010, 0)])));
        assert!(!is_sparse(&table(&[(0, 1), (0x1000, 0), (0x1010, 1), (0x2000, 0)])));
        assert!(!is_sparse(&table(&[])));
    }
}
