//! Compiling, starting and asking test programs.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use profiler::{
    model::{LocationId, Profile, Reason},
    symbolize::{FrameId, Names, Owner, Symbolizer, Watch},
};

/// A C program that prints `NAME ADDRESS` for some of its functions, then `ready`, and waits for its standard input
/// to be closed.
pub const PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline, used)) static int local_function(int x) { __asm__ volatile(""); return x * 3; }
__attribute__((noinline, used)) int global_function(int x) { __asm__ volatile(""); return local_function(x) + 1; }
int main(void) {
    printf("local_function %p\nglobal_function %p\nmain %p\n",
           (void *)local_function, (void *)global_function, (void *)main);
    printf("caller_of_main %p\n", __builtin_return_address(0));
    printf("ready\n");
    fflush(stdout);
    char c;
    while (read(0, &c, 1) > 0) global_function(1);
    return 0;
}
"#;

/// Compiles a source text; `flags` go to the compiler.
pub fn compile(compiler: &str, dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let extension = match compiler {
        "g++" => "cc",
        "rustc" => "rs",
        _ => "c",
    };
    let source_path = dir.join(format!("{name}.{extension}"));
    fs::write(&source_path, source).unwrap();
    let out = dir.join(name);
    run(Command::new(compiler).current_dir(dir).arg(&source_path).arg("-o").arg(&out).args(flags));
    out
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A started program that has printed its addresses and waits.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it printed.
    pub addresses: HashMap<String, u64>,
}

impl Running {
    /// Starts a program and waits until it is ready.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut addresses = HashMap::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "ready" {
                break;
            }
            let (name, address) = line.split_once(' ').unwrap();
            addresses
                .insert(name.to_owned(), u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap());
        }
        assert!(!addresses.is_empty(), "{command:?} printed nothing");
        let stdin = child.stdin.take();
        Self { child, stdin, addresses }
    }

    /// Process id. With `unshare --fork` or `chroot`, `addresses["pid"]` if the program prints it.
    pub fn pid(&self) -> u32 {
        self.addresses.get("pid").map_or(self.child.id(), |&pid| pid as u32)
    }

    pub fn address(&self, function: &str) -> u64 {
        self.addresses[function]
    }

    /// Ends the program and waits for its end.
    pub fn end(&mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The owner of stacks taken now.
pub fn owner(pid: u32) -> Owner {
    Owner { pid, incarnation: 0, first_ns: u64::MAX }
}

/// A symbolizer that has read one process.
pub fn symbolizer_of(pid: u32) -> Symbolizer {
    let mut symbolizer = Symbolizer::new(Watch::Known);
    symbolizer.scan_existing(|p| p == pid).unwrap();
    symbolizer
}

/// What a frame became.
pub struct Resolved {
    pub profile: Profile,
    pub names: Names,
    pub frames: Vec<FrameId>,
}

impl Resolved {
    pub fn new(symbolizer: Symbolizer, frames: Vec<FrameId>) -> Self {
        let mut profile = Profile::default();
        let names = symbolizer.resolve(&mut profile);
        Self { profile, names, frames }
    }

    pub fn location(&self, index: usize) -> LocationId {
        self.names.location(self.frames[index])
    }

    /// Names of the functions at a frame, innermost first.
    pub fn chain(&self, index: usize) -> Vec<&str> {
        let location = &self.profile.locations[self.location(index).index()];
        location
            .lines
            .iter()
            .map(|line| self.profile.functions[line.function.index()].name.as_str())
            .collect()
    }

    /// Name of the physical function of a frame.
    pub fn name(&self, index: usize) -> &str {
        self.chain(index).last().unwrap()
    }

    pub fn reason(&self, index: usize) -> Option<Reason> {
        let location = &self.profile.locations[self.location(index).index()];
        self.profile.functions[location.lines[0].function.index()].unresolved
    }

    pub fn module(&self, index: usize) -> &profiler::model::Module {
        let location = &self.profile.locations[self.location(index).index()];
        &self.profile.modules[location.module.index()]
    }

    /// `file:line` of every function at a frame.
    pub fn places(&self, index: usize) -> Vec<(String, u32)> {
        let location = &self.profile.locations[self.location(index).index()];
        let place = |line: &profiler::model::Line| {
            let file = self.profile.functions[line.function.index()].file.clone().unwrap_or_default();
            (file.rsplit('/').next().unwrap().to_owned(), line.line)
        };
        location.lines.iter().map(place).collect()
    }
}

/// Looks up one leaf address each.
pub fn look_up(mut symbolizer: Symbolizer, pid: u32, addresses: &[u64]) -> Resolved {
    let mut frames = Vec::new();
    for &address in addresses {
        symbolizer.user_stack(owner(pid), &[address], &mut frames);
    }
    Resolved::new(symbolizer, frames)
}
