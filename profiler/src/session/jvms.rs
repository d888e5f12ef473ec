//! Which of the processes are JVMs, and how their Java code is walked: read from their memory in a thread of its own,
//! because that takes some 10 ms each, and a JVM that starts is not ready at once.

use std::{
    collections::HashMap,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    symbolize::runtime::jvm::{
        open::{self, OpenError},
        unwind_layout::UnwindLayout,
    },
    unwind::{Code, Range},
};

/// From one attempt to read a JVM that is not ready to the next.
const RETRY: Duration = Duration::from_millis(50);
/// Attempts: JVMs are ready within some 100 ms, on machines with load seconds.
const MAX_ATTEMPTS: u32 = 100;
/// Most processes asked for at the same time; further ones are walked as what they are without: by frame pointers.
const MAX_WAITING: usize = 1024;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Process id.
    pub pid: u32,
    /// `CountKey::incarnation`.
    pub incarnation: u64,
}

/// What was found out of a process.
#[derive(Debug)]
pub struct Found {
    /// Of which.
    pub process: Incarnation,
    /// How it is walked. `None`: it cannot be.
    layout: Option<UnwindLayout>,
}

/// What is known of a process that maps a libjvm.
struct Known {
    incarnation: u64,
    answer: Answer,
}

/// How the Java code of a process is walked.
pub enum Answer {
    /// That is being found out.
    Later,
    /// So.
    Layout(Box<UnwindLayout>),
    /// As all code without a file.
    None,
}

/// The thread, and what it has found out.
pub struct Jvms {
    wanted: Sender<Incarnation>,
    found: UnboundedReceiver<Found>,
    known: HashMap<u32, Known>,
}

impl Jvms {
    /// Starts the thread. It ends with this value.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start() -> io::Result<Self> {
        let (wanted, jobs) = channel();
        let (done, found) = unbounded_channel();
        thread::Builder::new().name("jvms".to_owned()).spawn(move || work(&jobs, &done))?;
        Ok(Self { wanted, found, known: HashMap::new() })
    }

    /// How the Java code of a process that maps a libjvm is walked. It is found out at the first question.
    pub fn answer(&mut self, process: Incarnation) -> &Answer {
        let Incarnation { pid, incarnation } = process;
        let known = self.known.entry(pid).or_insert(Known { incarnation: 0, answer: Answer::None });
        if known.incarnation != incarnation {
            // The thread lives as long as `self` does, but for a panic in it, after which nothing is found any more.
            let answer = self.wanted.send(process).map_or(Answer::None, |()| Answer::Later);
            *known = Known { incarnation, answer };
        }
        &known.answer
    }

    /// Waits for what is found out next. Never, if there is nothing any more.
    pub async fn next(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }

    /// Takes it in. The kernel side is then to be told of the process.
    pub fn add(&mut self, found: Found) {
        let Found { process: Incarnation { pid, incarnation }, layout } = found;
        if let Some(known) = self.known.get_mut(&pid).filter(|known| known.incarnation == incarnation) {
            known.answer = layout.map_or(Answer::None, |layout| Answer::Layout(Box::new(layout)));
        }
    }

    /// A process ended, or executes another program.
    pub fn forget(&mut self, pid: u32) {
        self.known.remove(&pid);
    }

    /// Forgets the processes that are gone.
    pub fn forget_gone(&mut self, is_there: impl Fn(u32) -> bool) {
        self.known.retain(|&pid, _| is_there(pid));
    }
}

fn work(jobs: &Receiver<Incarnation>, done: &UnboundedSender<Found>) {
    let mut waiting: Vec<(Incarnation, u32)> = Vec::new();
    loop {
        let job = match waiting.is_empty() {
            true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => jobs.recv_timeout(RETRY),
        };
        let mut answers = Vec::new();
        match job {
            Ok(process) if waiting.len() < MAX_WAITING => waiting.push((process, 0)),
            Ok(process) => answers.push(Found { process, layout: None }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain_mut(|(process, attempts)| {
            *attempts += 1;
            let answer = read(process.pid, *attempts >= MAX_ATTEMPTS);
            let is_open = answer.is_none();
            answers.extend(answer.map(|layout| Found { process: *process, layout }));
            is_open
        });
        if answers.into_iter().any(|found| done.send(found).is_err()) {
            return;
        }
    }
}

/// `None`: it is not ready. `Some(None)`: it cannot be walked.
fn read(pid: u32, is_last: bool) -> Option<Option<UnwindLayout>> {
    let layout = open::open(pid).and_then(|jvm| Ok(jvm.layout()?));
    match layout {
        Ok(layout) => Some(Some(layout)),
        // Any of them, while it is starting.
        Err(OpenError::Fault(_)) if !is_last => None,
        Err(error) => {
            log::info!("Java code of process {pid} is walked by frame pointers: {error}");
            Some(None)
        }
    }
}

/// The executable memory of a JVM of which nothing is known yet: what the program made itself is not walked at all, because
/// by frame pointers it would go past callers.
pub fn without_heaps(mut ranges: Vec<Range>) -> Vec<Range> {
    for range in ranges.iter_mut().filter(|range| range.code == Code::Anonymous) {
        range.code = Code::Java;
    }
    ranges
}

/// The executable memory of a JVM: what the program made itself, as far as it lies in a code heap, is that heap's, and so
/// is what is reserved for it. Sorted by address, as `ranges` are.
pub fn with_heaps(ranges: Vec<Range>, layout: &UnwindLayout) -> Vec<Range> {
    cut(ranges, layout.heaps.iter().map(|heap| (heap.low, heap.reserved_high)).collect())
}

fn cut(ranges: Vec<Range>, mut heaps: Vec<(u64, u64)>) -> Vec<Range> {
    heaps.retain(|(low, high)| low < high);
    heaps.sort_unstable();
    let mut out: Vec<Range> =
        heaps.iter().map(|&(start, end)| Range { start, end, code: Code::Java }).collect();
    for range in ranges {
        if range.code != Code::Anonymous {
            // What is mapped from a file is no heap.
            out.retain(|heap| heap.code != Code::Java || heap.end <= range.start || range.end <= heap.start);
            out.push(range);
            continue;
        }
        let mut start = range.start;
        for &(low, high) in heaps.iter().filter(|&&(low, high)| low < range.end && range.start < high) {
            if start < low {
                out.push(Range { start, end: low, ..range });
            }
            start = start.max(high);
        }
        if start < range.end {
            out.push(Range { start, ..range });
        }
    }
    out.sort_unstable_by_key(|range| range.start);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::FileId;

    const FILE: Code = Code::File { file: FileId(1), offset: 0 };

    fn range(start: u64, end: u64, code: Code) -> Range {
        Range { start, end, code }
    }

    #[test]
    fn what_lies_in_a_reserved_heap_is_the_heaps() {
        let heaps = [(100, 200), (200, 300), (400, 500)];
        let cut = |ranges: &[Range]| cut(ranges.to_vec(), heaps.to_vec());
        let [first, second, third] = heaps.map(|(low, high)| range(low, high, Code::Java));
        // Not yet all of it in use; one range across two heaps; other memory around them.
        let ranges = [
            range(10, 20, FILE),
            range(50, 60, Code::Anonymous),
            range(90, 250, Code::Anonymous),
            range(350, 600, Code::Anonymous),
            range(600, 700, FILE),
        ];
        let expected = [
            range(10, 20, FILE),
            range(50, 60, Code::Anonymous),
            range(90, 100, Code::Anonymous),
            first,
            second,
            range(350, 400, Code::Anonymous),
            third,
            range(500, 600, Code::Anonymous),
            range(600, 700, FILE),
        ];
        assert_eq!(cut(&ranges), expected);
        assert_eq!(cut(&[]), [first, second, third]);
        // A file where a heap is said to be: it is none.
        assert_eq!(cut(&[range(150, 160, FILE)]), [range(150, 160, FILE), second, third]);
    }

    #[test]
    fn a_jvm_that_is_not_known_yet_is_not_walked_by_frame_pointers() {
        let ranges = vec![range(10, 20, FILE), range(50, 60, Code::Anonymous)];
        assert_eq!(without_heaps(ranges), [range(10, 20, FILE), range(50, 60, Code::Java)]);
    }

    #[test]
    fn a_process_without_a_jvm_gets_an_answer() {
        let mut jvms = Jvms::start().unwrap();
        let process = Incarnation { pid: std::process::id(), incarnation: 1 };
        assert!(matches!(jvms.answer(process), Answer::Later));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(jvms.next());
        assert_eq!(found.process, process);
        jvms.add(found);
        assert!(matches!(jvms.answer(process), Answer::None));
        // An answer for what was there before.
        jvms.add(Found { process: Incarnation { incarnation: 0, ..process }, layout: None });
        assert!(matches!(jvms.answer(Incarnation { incarnation: 2, ..process }), Answer::Later));
        jvms.forget(process.pid);
        assert!(matches!(jvms.answer(Incarnation { incarnation: 2, ..process }), Answer::Later));
    }
}
