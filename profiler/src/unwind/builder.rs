//! Makes tables off the hot path: a thread of its own that reads files, one after the other, so that memory stays
//! bounded by the largest of them.

use std::{
    fs::File,
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Instant,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
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
    /// GNU build id, if it has one.
    pub build_id: Option<Vec<u8>>,
}

/// A table that was made.
#[derive(Debug)]
pub struct Built {
    /// The module's number.
    pub module: u32,
    /// The table, or why there is none.
    pub table: Result<Table, TableError>,
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
    while let Ok(job) = wanted.recv() {
        let begin = Instant::now();
        let table = build(&job);
        let took_ns = begin.elapsed().as_nanos() as u64;
        if done.send(Built { module: job.module, table, took_ns }).is_err() {
            return;
        }
    }
}

fn build(job: &Job) -> Result<Table, TableError> {
    let bytes = match &job.source {
        Source::File(file) => Bytes::File(file),
        Source::Memory(image) => Bytes::Memory(image),
    };
    eh_frame::build(bytes).map(|(table, _)| table)
}
