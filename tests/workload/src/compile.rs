//! Compiling one workload: command line, hash, and what is done to the compiler's output.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{self, Command},
};

use crate::{Language, Recipe, Shape};

/// Frame pointers (with `KEEP_FRAME` of `burn.h` also in leaf functions), and every call a call: what the known
/// answers are about.
const C_FLAGS: [&str; 6] = [
    "-O2",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    // A function of one line stays a function, and under its name.
    "-fno-ipa-icf",
    "-Wall",
    "-Werror",
];

/// Without frame pointers after all.
const BARE: [&str; 2] = ["-fomit-frame-pointer", "-DNO_FRAMES"];

/// What `hostile_symbols.c` has in place of control characters, and what is put there: a line break, a terminal's
/// "clear the screen", a tab, a byte that is no UTF-8, another control character.
const CONTROL: (&[u8; 8], &[u8; 8]) = (b"@@@@@@@@", b"\n\x1b[2J\t\xff\x01");

/// The compilers of a machine.
#[derive(Clone, Debug)]
pub struct Compilers {
    /// What the names of the C family's programs begin with: nothing, or `aarch64-linux-gnu-`.
    pub prefix: String,
    /// The Rust compiler.
    pub rustc: PathBuf,
    /// What makes it compile for that machine.
    pub rustc_flags: Vec<String>,
}

impl Compilers {
    /// Those for the machine that runs this.
    pub fn native() -> Self {
        Self { prefix: String::new(), rustc: "rustc".into(), rustc_flags: Vec::new() }
    }

    fn compiler(&self, language: Language) -> PathBuf {
        match language {
            Language::C => format!("{}gcc", self.prefix).into(),
            Language::Cpp => format!("{}g++", self.prefix).into(),
            Language::Rust => self.rustc.clone(),
        }
    }
}

/// The directory of the sources.
pub fn source_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The recipe's program below `directory`, compiled if it is not there.
pub fn built(recipe: &Recipe, compilers: &Compilers, directory: &Path) -> Result<PathBuf, String> {
    let program = directory.join(hash(recipe, compilers)?).join(recipe.name);
    if !program.exists() {
        build(recipe, compilers, &program)?;
    }
    Ok(program)
}

fn arguments(recipe: &Recipe, compilers: &Compilers) -> Vec<String> {
    let mut arguments: Vec<String> = match recipe.language {
        Language::C | Language::Cpp => C_FLAGS.map(str::to_owned).to_vec(),
        Language::Rust => compilers.rustc_flags.clone(),
    };
    if !recipe.frames && recipe.language != Language::Rust {
        arguments.extend(BARE.map(str::to_owned));
    }
    arguments.push(source_directory().join(recipe.source).display().to_string());
    arguments.extend(recipe.flags.iter().map(|&flag| flag.to_owned()));
    arguments
}

fn hash(recipe: &Recipe, compilers: &Compilers) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    for source in [recipe.source, "burn.h", "marker.h"] {
        let path = source_directory().join(source);
        fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?.hash(&mut hasher);
    }
    let compiler = compilers.compiler(recipe.language);
    run(Command::new(&compiler).arg("--version"))?.hash(&mut hasher);
    (arguments(recipe, compilers), CONTROL, recipe.shape as u8).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn build(recipe: &Recipe, compilers: &Compilers, program: &Path) -> Result<(), String> {
    let directory = program.parent().ok_or("a program is in a directory")?;
    fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    // Tests in other processes may build the same: each under a name of its own, renamed when it is whole.
    let unfinished = directory.join(format!("new-{}", process::id()));
    let mut compiler = Command::new(compilers.compiler(recipe.language));
    run(compiler.args(arguments(recipe, compilers)).arg("-o").arg(&unfinished))?;
    let kept = match recipe.shape {
        Shape::Whole => None,
        Shape::Stripped => Some("--strip-all"),
        Shape::DebugFile => Some("--only-keep-debug"),
    };
    if let Some(kept) = kept {
        run(Command::new(format!("{}objcopy", compilers.prefix)).arg(kept).arg(&unfinished))?;
    }
    let failure = |e: std::io::Error| format!("{}: {e}", unfinished.display());
    replace(&unfinished, CONTROL.0, CONTROL.1).map_err(failure)?;
    fs::rename(&unfinished, program).map_err(failure)
}

fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}; run `cargo xtask setup --tests`"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn replace(file: &Path, from: &[u8; 8], to: &[u8; 8]) -> std::io::Result<()> {
    let mut bytes = fs::read(file)?;
    let windows = bytes.windows(from.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| window == from).map(|(at, _)| at).collect();
    if places.is_empty() {
        return Ok(());
    }
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(file, bytes)
}
