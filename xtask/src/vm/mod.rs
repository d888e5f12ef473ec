//! `cargo xtask vm-test`: the real-kernel tests on stock kernels of the distribution, in virtual machines.
//!
//! For each architecture one root file system is built ([`guest`]): the first process, the tests, the binary that
//! `dist` makes, the workloads. Each kernel ([`kernels`]) is booted with it under qemu's emulation ([`machine`],
//! [`boot`]); the guest says a verdict per test ([`verdict`]), which is compared with what is expected of that kernel
//! ([`expected`]). docs/testing.md tells how to use it.

mod boot;
mod cpio;
mod expected;
mod guest;
mod kernels;
mod libraries;
mod machine;
mod qemu;
mod table;
mod verdict;

use std::{collections::BTreeMap, fs, path::Path, sync::Mutex, thread, time::Duration, time::Instant};

use crate::{
    document,
    process::{Failure, say},
    workspace,
};
use boot::Share;
use expected::{Expectation, Verdict};
use kernels::{Fetched, KERNELS, Kernel};
pub use machine::Machine;
use qemu::Qemu;

/// How long a guest may run: all tests of the slowest kernel took 1161 s on the slowest host so far, and two guests share them.
const GUEST_LIMIT: Duration = Duration::from_secs(1000);

/// Guests at a time: one thread emulates all CPUs of a guest (see [`Machine::boot`]).
const GUESTS: usize = 2;

/// Guests that share the tests of a kernel: with an odd number of kernels, the last one would have the machine to itself.
const SHARES: usize = 2;

/// What is run.
pub struct Plan {
    kernels: Vec<&'static Kernel>,
    machines: Vec<&'static Machine>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

impl Plan {
    /// The plan of every test run: all tests on the kernels and the architecture that are the default.
    pub fn default_kernels() -> Result<Self, Failure> {
        Self::parse(None, None, None)
    }

    /// The plan of a command line: lists of kernels and architectures, separated by commas.
    ///
    /// # Errors
    /// A name that is unknown, with those that are known.
    pub fn parse(
        kernels: Option<&str>,
        architectures: Option<&str>,
        filter: Option<String>,
    ) -> Result<Self, Failure> {
        let kernels =
            names(kernels, &["5.10", "6.1", "6.12"], Kernel::of, &KERNELS.map(|kernel| kernel.name))?;
        let machines = names(
            architectures,
            &[std::env::consts::ARCH],
            Machine::of,
            &machine::MACHINES.map(|machine| machine.arch),
        )?;
        if filter
            .as_deref()
            .is_some_and(|text| !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b)))
        {
            return Err(Failure::usage("--filter takes a part of a test's name"));
        }
        Ok(Self { kernels, machines, filter })
    }
}

fn names<T: ?Sized>(
    list: Option<&str>,
    default: &[&str],
    find: impl Fn(&str) -> Option<&'static T>,
    known: &[&str],
) -> Result<Vec<&'static T>, Failure> {
    let list: Vec<&str> = list.map_or_else(|| default.to_vec(), |list| list.split(',').collect());
    let unknown = |name: &str| Failure::usage(format!("`{name}` is none of: {}", known.join(", ")));
    list.into_iter().map(|name| find(name).ok_or_else(|| unknown(name))).collect()
}

/// What became of one kernel.
struct Run {
    kernel: &'static str,
    arch: &'static str,
    release: Option<String>,
    /// Why there is no such kernel here.
    absent: Option<String>,
    /// What was wrong with the guest as a whole, or with the list of expectations.
    broken: Vec<String>,
    verdicts: BTreeMap<String, Verdict>,
}

/// Runs the plan, prints the table, and with `document` also writes it into docs/kernels.md.
///
/// # Errors
/// If anything is not as expected on any kernel, or a mandatory kernel is absent.
pub fn vm_test(plan: &Plan, document: bool) -> Result<(), Failure> {
    let list = workspace::root().join("tests/expected.txt");
    let text = fs::read_to_string(&list).map_err(|e| Failure::io(&list, &e))?;
    let expectations =
        expected::parse(&text).map_err(|e| Failure::new(format!("{}: {e}", list.display())))?;
    let mut runs = Vec::new();
    for machine in &plan.machines {
        let qemu = Qemu::prepare(machine)?;
        let root = guest::build(machine)?;
        let guest = Guest { machine, qemu: &qemu, root: &root };
        runs.extend(run_all(plan, guest, &expectations)?);
    }
    let table = table::markdown(&runs);
    print!("{table}");
    let mandatory =
        |run: &&Run| run.absent.is_some() && Kernel::of(run.kernel).is_some_and(|kernel| kernel.mandatory);
    let absent = runs.iter().filter(mandatory).map(|run| run.kernel);
    let mut problems: Vec<_> =
        absent.map(|kernel| format!("kernel {kernel} is mandatory and absent")).collect();
    problems.extend(runs.iter().flat_map(wrong));
    if problems.is_empty() && document && plan.filter.is_none() {
        document::write("docs/kernels.md", "vm-test", &format!("\n{table}\n"))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::new(problems.join("\n"))) }
}

/// What is wrong with a run, a line or more each.
fn wrong(run: &Run) -> Vec<String> {
    let place = format!("{} {}", run.kernel, run.arch);
    let mut lines: Vec<_> = run.broken.iter().map(|why| format!("{place}: {why}")).collect();
    for (test, verdict) in &run.verdicts {
        if let Verdict::Wrong(why) = verdict {
            lines.push(format!("{place}: {test}: {why}"));
        }
    }
    lines
}

/// What all kernels are booted with.
#[derive(Clone, Copy)]
struct Guest<'a> {
    machine: &'static Machine,
    qemu: &'a Qemu,
    /// The root file system.
    root: &'a Path,
}

/// What one guest of a kernel said.
struct Booted {
    report: verdict::Report,
    took: Duration,
    cpu: Duration,
}

/// Boots all kernels of the plan in its order, [`GUESTS`] guests at a time.
fn run_all(plan: &Plan, guest: Guest<'_>, expectations: &[Expectation]) -> Result<Vec<Run>, Failure> {
    // What is asked for by name is little.
    let shares = if plan.filter.is_some() { 1 } else { SHARES };
    let images: Vec<_> = plan.kernels.iter().map(|kernel| kernel.fetch(guest.machine)).collect();
    let there = images.iter().enumerate().filter_map(|(at, image)| Some((at, image.as_ref().ok()?)));
    let all = |of| (0..of).map(move |number| Share { number, of });
    let guests: Vec<_> =
        there.flat_map(|(at, image)| all(shares).map(move |share| (at, image, share))).collect();
    let next = Mutex::new(guests.iter());
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().ok().and_then(|mut next| next.next());
                    let Some(&(at, image, share)) = taken else { return };
                    let booted = run_guest(plan, plan.kernels[at], image, guest, share);
                    if let Ok(mut done) = done.lock() {
                        done.insert((at, share.number), booted);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(|_| Failure::new("a thread that ran a guest panicked"))?;
    let mut runs = Vec::new();
    for (at, (kernel, image)) in plan.kernels.iter().zip(&images).enumerate() {
        let mut booted = Vec::new();
        for share in 0..shares {
            booted.extend(done.remove(&(at, share)).transpose()?);
        }
        let absent = image.as_ref().err().map(ToString::to_string);
        runs.push(run_of(plan, kernel, guest.machine, absent, booted, expectations));
    }
    Ok(runs)
}

/// Boots a guest with its share of the tests.
fn run_guest(
    plan: &Plan,
    kernel: &Kernel,
    image: &Fetched,
    guest: Guest<'_>,
    share: Share,
) -> Result<Booted, Failure> {
    let Guest { machine, qemu, root } = guest;
    let (arch, name) = (machine.arch, kernel.name);
    say(format!("{name} {arch} {share}: booting {}", image.version.trim()));
    let order = boot::Order { qemu, filter: plan.filter.as_deref(), share, limit: GUEST_LIMIT };
    let log = root.with_file_name(format!("console-{name}-{arch}-{}.txt", share.number));
    let start = Instant::now();
    let (report, cpu) = boot::boot(machine, &image.path, root, &order, &log)?;
    Ok(Booted { report, took: start.elapsed(), cpu })
}

/// What the guests of a kernel said, judged. With `absent`, there were none.
fn run_of(
    plan: &Plan,
    kernel: &Kernel,
    machine: &Machine,
    absent: Option<String>,
    guests: Vec<Booted>,
    expectations: &[Expectation],
) -> Run {
    let (name, arch) = (kernel.name, machine.arch);
    let mut run =
        Run { kernel: name, arch, release: None, absent, broken: Vec::new(), verdicts: BTreeMap::new() };
    if let Some(why) = &run.absent {
        say(format!("{name} {arch}: absent: {why}"));
        return run;
    }
    let mut all = verdict::Report::default();
    let (mut took, mut cpu) = (Vec::new(), Duration::ZERO);
    for guest in guests {
        all.merge(guest.report);
        took.push(format!("{:.0} s", guest.took.as_secs_f64()));
        cpu += guest.cpu;
    }
    for (test, outcome) in &all.tests {
        run.verdicts.insert(test.clone(), expected::judge(expectations, test, outcome, name, arch));
    }
    if plan.filter.is_none() {
        let unused = expected::unused(expectations, |test| all.tests.contains_key(test), name, arch);
        all.broken
            .extend(unused.iter().map(|test| format!("tests/expected.txt has {test}, which did not run")));
    }
    print_verdicts(&run, &all, &took.join(" and "), cpu);
    Run { release: all.release, broken: all.broken, ..run }
}

/// Prints a line per test, and how long the guests took.
fn print_verdicts(run: &Run, report: &verdict::Report, took: &str, cpu: Duration) {
    let mut text = String::new();
    for (test, verdict) in &run.verdicts {
        let said = match verdict {
            Verdict::Passed => "passed".to_owned(),
            Verdict::Again => "passed in a later run".to_owned(),
            Verdict::Skipped(why) => format!("skipped: {why}"),
            Verdict::Expected(why) => format!("expected failure: {why}"),
            Verdict::Wrong(_) => "FAILED".to_owned(),
        };
        let milliseconds = report.tests.get(test).map_or(0, |test| test.milliseconds);
        text += &format!("{} {} {test} {said} ({milliseconds} ms)\n", run.kernel, run.arch);
    }
    let good = run.verdicts.values().filter(|verdict| !matches!(verdict, Verdict::Wrong(_))).count();
    text += &format!(
        "{} {}: {good} of {} tests as expected, {took}, {:.0} s of CPU\n",
        run.kernel,
        run.arch,
        run.verdicts.len(),
        cpu.as_secs_f64()
    );
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kernels: Option<&str>, architectures: Option<&str>) -> Result<Plan, Failure> {
        Plan::parse(kernels, architectures, None)
    }

    #[test]
    fn kernels_and_architectures_are_lists() {
        let plan = plan(Some("6.1,new"), Some("arm64,x86_64")).unwrap();
        assert_eq!(plan.kernels.iter().map(|kernel| kernel.name).collect::<Vec<_>>(), ["6.1", "new"]);
        assert_eq!(
            plan.machines.iter().map(|machine| machine.arch).collect::<Vec<_>>(),
            ["aarch64", "x86_64"]
        );
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let failure = plan(Some("6.2"), None).err().unwrap();
        assert_eq!(failure.to_string(), "`6.2` is none of: 5.10, 6.1, 6.12, new");
        assert!(plan(None, Some("riscv64")).is_err());
        assert!(
            Plan::parse(None, None, Some("a b".to_owned())).is_err(),
            "it goes into the kernel's command line"
        );
    }
}
