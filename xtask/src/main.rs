//! The workspace's tasks: `cargo xtask --help`.
//!
//! Each task is a module with one public entry; they share `workspace` (where things are) and `process` (running
//! programs). A task says what it does in a line each on stderr; stdout is for results.

mod archive;
mod bench;
mod cross;
mod daemon;
mod dist;
mod document;
mod ebpf;
mod jdks;
mod jvm_matrix;
mod process;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::{env, process::ExitCode, time::Duration};

use process::Failure;
use setup::Extent;

const HELP: &str = "\
Tasks of this workspace.

Usage: cargo xtask TASK [OPTIONS]

  setup [--tests]       Find or install what builds the eBPF programs; with --tests also what the tests need
  ebpf                  Build the eBPF object only; print its path and its programs
  run [--] ARGS         Set up if needed, build the release binary and run it with ARGS, as root
  test [--no-kernel] [--filter NAME]
                        Set up, then every check and test; the real-kernel tests last
                          --no-kernel    leave out the tests that need root and a kernel with BTF
                          --filter NAME  only run tests whose name contains NAME, and no other check
  vm-test [--kernel LIST] [--arch LIST] [--filter NAME]
                        The real-kernel tests on the distribution's kernels, in virtual machines without KVM; the
                        table goes into docs/kernels.md
                          --kernel LIST  of 5.10, 6.1, 6.12 and new, separated by commas; the first three if left out
                          --arch LIST    of x86_64 and aarch64; this machine's if left out
                          --filter NAME  only tests whose name contains NAME
  jdks [--only LIST]    Fetch JDKs of other versions and unpack them into <target>/jdks, for tests; print where they are
                          --only LIST  major versions, separated by commas
  jvm-matrix [--only LIST]
                        The tests of Java names and stacks with each of these JDKs (root), into docs/jvm.md
  tidy [--bless]        Check the rules that the compiler does not; --bless rewrites generated tables
  bench [--quick] [--only network|java|daemon]
                        Measure what the profiler costs, beside the others that are installed (root), into
                        docs/performance.md
                          --quick         in six minutes
                          --only network  the accounting of sockets alone, printed
                          --only java     what a Java program is slowed down by, printed (in five minutes)
  soak [--minutes N]    The daemon under a mix of loads (root): memory, budget, windows
                          --minutes N  an hour if left out
  dist [--target TARGET] [--prove]
                        Build the single static binary in <target>/dist
                          --target TARGET  x86_64, aarch64 or a triple; what it needs is installed
                          --prove          run it in an empty chroot (root)
";

fn main() -> ExitCode {
    let mut args: Vec<String> = Vec::new();
    for arg in env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => return fail(&Failure::new(format!("argument {} is not UTF-8", arg.display()))),
        }
    }
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(failure.code())
}

fn dispatch(args: &[String]) -> Result<(), Failure> {
    let Some((task, rest)) = args.split_first() else {
        print!("{HELP}");
        return Ok(());
    };
    let mut options = Options(rest.to_vec());
    match task.as_str() {
        "-h" | "--help" | "help" => print!("{HELP}"),
        "run" => return run::run(rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest)),
        "setup" => {
            let extent = if options.flag("--tests") { Extent::Tests } else { Extent::Build };
            options.end()?;
            setup::setup(extent)?;
        }
        "ebpf" => {
            options.end()?;
            ebpf::ebpf()?;
        }
        "test" => {
            let no_kernel = options.flag("--no-kernel");
            let filter = options.value("--filter")?;
            options.end()?;
            test::test(&test::Plan { kernel: !no_kernel, filter })?;
        }
        "vm-test" => {
            let (kernels, architectures) = (options.value("--kernel")?, options.value("--arch")?);
            let filter = options.value("--filter")?;
            options.end()?;
            vm::vm_test(&vm::Plan::parse(kernels.as_deref(), architectures.as_deref(), filter)?, true)?;
        }
        "jdks" => {
            let only = options.value("--only")?;
            options.end()?;
            jdks::jdks(only.as_deref())?;
        }
        "jvm-matrix" => {
            let only = options.value("--only")?;
            options.end()?;
            jvm_matrix::jvm_matrix(only.as_deref())?;
        }
        "tidy" => {
            let bless = options.flag("--bless");
            options.end()?;
            tidy::tidy(bless)?;
        }
        "bench" => {
            let (quick, only) = (options.flag("--quick"), options.value("--only")?);
            options.end()?;
            bench::bench(quick, only.as_deref())?;
        }
        "soak" => {
            let minutes = options.value("--minutes")?.unwrap_or_else(|| "60".to_owned());
            options.end()?;
            let minutes = minutes.parse::<u32>().ok().filter(|minutes| *minutes != 0);
            let minutes = minutes.ok_or_else(|| Failure::usage("--minutes: a whole number from 1 on"))?;
            soak::soak(Duration::from_secs(u64::from(minutes) * 60))?;
        }
        "dist" => {
            let prove = options.flag("--prove");
            let target = options.value("--target")?;
            options.end()?;
            dist::dist(target.as_deref(), prove)?;
        }
        other => return Err(Failure::usage(format!("no task `{other}`; see cargo xtask --help"))),
    }
    Ok(())
}

/// The options of a task, taken out one by one; what remains is an error.
struct Options(Vec<String>);

impl Options {
    fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|arg| arg == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(at) = self.0.iter().position(|arg| arg == name) else { return Ok(None) };
        self.0.remove(at);
        if at < self.0.len() {
            return Ok(Some(self.0.remove(at)));
        }
        Err(Failure::usage(format!("{name} needs a value")))
    }

    fn end(&self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some(arg) => Err(Failure::usage(format!("unexpected argument `{arg}`; see cargo xtask --help"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        Options(args.iter().map(|arg| (*arg).to_owned()).collect())
    }

    #[test]
    fn options_are_taken_in_any_order() {
        let mut given = options(&["--filter", "cpu", "--no-kernel"]);
        assert!(given.flag("--no-kernel"));
        assert_eq!(given.value("--filter").unwrap().as_deref(), Some("cpu"));
        assert!(given.end().is_ok());
    }

    #[test]
    fn what_nobody_takes_is_an_error() {
        assert!(options(&["--nokernel"]).end().is_err());
        assert!(options(&["--filter"]).value("--filter").is_err());
        assert!(dispatch(&["frobnicate".to_owned()]).is_err());
        assert!(dispatch(&["tidy".to_owned(), "--blez".to_owned()]).is_err());
    }
}
