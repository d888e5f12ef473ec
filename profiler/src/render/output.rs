//! Where output goes: checked before the work starts, replaced only when it is complete.
//!
//! A file is written beside its target and renamed over it, so that a failure (a full disk, say) leaves an older file
//! as it was, and a reader never sees half a file. Pipes and devices are written directly.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{FORMATS, Format, RenderError, RenderOptions, format_by_path};
use crate::model::Profile;

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", path.display())]
pub struct OutputError {
    /// The output as it was asked for.
    pub path: PathBuf,
    /// What is wrong with it.
    pub cause: OutputCause,
}

/// What is wrong with an output.
#[derive(Debug, thiserror::Error)]
pub enum OutputCause {
    /// Its name says no format.
    #[error("no format has such a name; use one of {}, or --format", extensions())]
    UnknownFormat,
    /// Two outputs go there.
    #[error("is given as output twice")]
    Twice,
    /// It cannot be created or replaced.
    #[error("cannot be written: {0}")]
    Create(io::Error),
    /// Writing failed; an older file is untouched.
    #[error("was not written: {0}")]
    Write(RenderError),
}

/// `.pb.gz (pprof), .svg (svg) ...`.
fn extensions() -> String {
    let all = FORMATS.iter().flat_map(|f| f.extensions.iter().map(move |e| format!("{e} ({})", f.name)));
    all.collect::<Vec<_>>().join(", ")
}

/// Where bytes go.
#[derive(Debug)]
enum Place {
    /// Standard output.
    Stdout,
    /// A pipe or device that exists.
    Direct,
    /// A file to be created or replaced, symbolic links resolved.
    File(PathBuf),
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    format: &'static Format,
    place: Place,
}

/// Outputs that could be written when they were opened.
#[derive(Debug, Default)]
pub struct OutputSet(Vec<Output>);

/// What became of the outputs.
#[derive(Debug, Default)]
pub struct Written {
    /// Files that are complete.
    pub files: Vec<PathBuf>,
    /// Outputs that failed. The others are complete nevertheless.
    pub errors: Vec<OutputError>,
}

impl OutputSet {
    /// Chooses formats and checks that each output can be created; `-` is standard output. Names decide; `format` is for
    /// those that do not tell, and `stdout_format` for `-` without it.
    ///
    /// # Errors
    /// The first output that has no format, is given twice or cannot be written.
    pub fn open(
        paths: &[PathBuf],
        format: Option<&'static Format>,
        stdout_format: &'static Format,
    ) -> Result<Self, OutputError> {
        let mut outputs: Vec<Output> = Vec::new();
        for path in paths {
            let fail = |cause| OutputError { path: path.clone(), cause };
            let is_stdout = path == Path::new("-");
            let otherwise = format.or(if is_stdout { Some(stdout_format) } else { None });
            let format =
                format_by_path(path).or(otherwise).ok_or_else(|| fail(OutputCause::UnknownFormat))?;
            let place = if is_stdout {
                Place::Stdout
            } else {
                place(path).map_err(|e| fail(OutputCause::Create(e)))?
            };
            if outputs.iter().any(|other| is_same(&other.place, &place) && !matches!(place, Place::Direct)) {
                return Err(fail(OutputCause::Twice));
            }
            outputs.push(Output { path: path.clone(), format, place });
        }
        Ok(Self(outputs))
    }

    /// Whether one of the outputs is standard output.
    pub fn has_stdout(&self) -> bool {
        self.0.iter().any(|output| matches!(output.place, Place::Stdout))
    }

    /// Writes all outputs. A failed one does not keep the others from being written; that the reader of a pipe has
    /// gone is no failure.
    pub fn write(&self, profile: &Profile, options: &RenderOptions, stdout: &mut dyn Write) -> Written {
        self.write_by(&|format, out| (format.write)(profile, options, out), stdout)
    }

    /// The formats, in the order of the outputs.
    pub fn formats(&self) -> impl Iterator<Item = &'static Format> {
        self.0.iter().map(|output| output.format)
    }

    /// [`OutputSet::write`] with what `write` writes in a format.
    pub fn write_by(
        &self,
        write: &dyn Fn(&'static Format, &mut dyn Write) -> Result<(), RenderError>,
        stdout: &mut dyn Write,
    ) -> Written {
        let mut written = Written::default();
        for output in &self.0 {
            let render = |out: &mut dyn Write| write(output.format, out);
            let result = match &output.place {
                Place::Stdout => render(stdout).and_then(|()| Ok(stdout.flush()?)),
                Place::Direct => OpenOptions::new()
                    .write(true)
                    .open(&output.path)
                    .map_err(RenderError::from)
                    .and_then(|mut file| render(&mut file)),
                Place::File(target) => replace(target, render),
            };
            match result {
                Err(error) if !error.is_broken_pipe() => {
                    let cause = OutputCause::Write(error);
                    written.errors.push(OutputError { path: output.path.clone(), cause });
                }
                _ if matches!(output.place, Place::File(_)) => written.files.push(output.path.clone()),
                _ => {}
            }
        }
        written
    }
}

fn is_same(a: &Place, b: &Place) -> bool {
    match (a, b) {
        (Place::Stdout, Place::Stdout) => true,
        (Place::File(a), Place::File(b)) => a == b,
        _ => false,
    }
}

/// Finds out where a path leads and whether something can be written there.
fn place(path: &Path) -> io::Result<Place> {
    let target = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(metadata) if !metadata.is_file() => return Ok(Place::Direct),
        Ok(_) => {
            // A file that may not be written must not be replaced either.
            OpenOptions::new().write(true).open(path)?;
            path.canonicalize()?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            directory.unwrap_or(Path::new(".")).canonicalize()?.join(name)
        }
        Err(error) => return Err(error),
    };
    // Leaves nothing behind, however the run ends.
    drop(Temporary::create(&target)?);
    Ok(Place::File(target))
}

/// A file beside the target that is removed unless it becomes the target.
struct Temporary {
    path: PathBuf,
    file: Option<File>,
}

impl Temporary {
    fn create(target: &Path) -> io::Result<Self> {
        let id = std::process::id();
        // Names left over from killed runs are passed by; creating never follows a link.
        for n in 0..100 {
            let path = target.with_file_name(format!(".profiler-{id}-{n}.tmp"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file: Some(file) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing can be done about a failure, and the next run passes the name by.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn replace(
    target: &Path,
    render: impl Fn(&mut dyn Write) -> Result<(), RenderError>,
) -> Result<(), RenderError> {
    let mut temporary = Temporary::create(target)?;
    if let Some(file) = &temporary.file {
        let mut out = BufWriter::new(file);
        render(&mut out)?;
        out.flush()?;
        if let Ok(metadata) = fs::metadata(target) {
            file.set_permissions(metadata.permissions())?;
        }
    }
    fs::rename(&temporary.path, target)?;
    temporary.file = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::render::{fixture, format_by_name, pprof};

    fn open(paths: &[&Path]) -> Result<OutputSet, OutputError> {
        let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
        OutputSet::open(&paths, None, format_by_name("folded").unwrap())
    }

    fn write(set: &OutputSet, stdout: &mut Vec<u8>) -> Written {
        set.write(&fixture::mixed(), &RenderOptions::default(), stdout)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn all_outputs_are_written_in_their_formats() {
        let dir = tempfile::tempdir().unwrap();
        let (recording, folded) = (dir.path().join("a.pb.gz"), dir.path().join("b.folded"));
        let set = open(&[&recording, Path::new("-"), &folded]).unwrap();
        assert!(names(dir.path()).is_empty(), "checking leaves nothing behind");
        assert!(set.has_stdout());
        let mut stdout = Vec::new();
        let written = write(&set, &mut stdout);
        assert_eq!(written.files, [recording.clone(), folded.clone()]);
        assert_eq!(fs::read(folded).unwrap(), stdout);
        assert_eq!(pprof::read(File::open(recording).unwrap()).unwrap(), fixture::mixed());
        assert_eq!(names(dir.path()), ["a.pb.gz", "b.folded"]);
    }

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &str| open(&[&dir.path().join(path)]).unwrap_err().cause.to_string();
        assert_eq!(error("none/a.svg"), "cannot be written: No such file or directory (os error 2)");
        assert!(error("a.xyz").contains("use one of .pb.gz (pprof), .folded (folded), .svg (svg)"));
        fs::create_dir(dir.path().join("d.svg")).unwrap();
        assert_eq!(error("d.svg"), "cannot be written: is a directory");
        let twice = dir.path().join("a.svg");
        assert!(matches!(open(&[&twice, &twice]).unwrap_err().cause, OutputCause::Twice));
        assert!(matches!(open(&[Path::new("-"), Path::new("-")]).unwrap_err().cause, OutputCause::Twice));
    }

    #[test]
    fn a_failed_write_keeps_the_older_file_and_the_other_outputs() {
        let dir = tempfile::tempdir().unwrap();
        let (svg, folded) = (dir.path().join("a.svg"), dir.path().join("a.folded"));
        fs::write(&svg, "older").unwrap();
        let set = open(&[&svg, Path::new("/dev/full"), &folded]);
        assert!(matches!(set.unwrap_err().cause, OutputCause::UnknownFormat), "a device has no extension");
        let mut profile = fixture::mixed();
        profile.samples[0].values[0] = i64::MAX / 2;
        let set = open(&[&svg, &folded]).unwrap();
        let written = set.write(&profile, &RenderOptions::default(), &mut Vec::new());
        assert_eq!(written.files, [folded]);
        assert!(
            written.errors[0]
                .to_string()
                .ends_with("a.svg: was not written: the values add up to more than 9007199254740992")
        );
        assert_eq!(fs::read_to_string(&svg).unwrap(), "older");
        assert_eq!(names(dir.path()), ["a.folded", "a.svg"], "no temporary file is left");
    }

    #[test]
    fn a_name_that_tells_its_format_wins() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.folded", "plain", "-"]
            .map(|name| if name == "-" { name.into() } else { dir.path().join(name) });
        let (json, text) = (format_by_name("json").unwrap(), format_by_name("text").unwrap());
        let set = OutputSet::open(&paths, Some(json), text).unwrap();
        assert_eq!(
            set.0.iter().map(|output| output.format.name).collect::<Vec<_>>(),
            ["folded", "json", "json"]
        );
        assert!(OutputSet::open(&paths[1..], None, text).is_err(), "nothing says the format of `plain`");
    }

    #[test]
    fn a_full_disk_is_named() {
        let paths = [PathBuf::from("/dev/full")];
        for format in FORMATS {
            let set = OutputSet::open(&paths, Some(format), format).unwrap();
            let written = write(&set, &mut Vec::new());
            let text = written.errors[0].to_string();
            assert_eq!(
                text, "/dev/full: was not written: No space left on device (os error 28)",
                "{}",
                format.name
            );
        }
    }

    #[test]
    fn links_and_permissions_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link.folded"));
        fs::write(&target, "older").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&target, &link).unwrap();
        assert!(write(&open(&[&link]).unwrap(), &mut Vec::new()).errors.is_empty());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("crunch;"));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_reader_that_leaves_is_no_failure() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        let set = open(&[Path::new("-")]).unwrap();
        let written = set.write(&fixture::mixed(), &RenderOptions::default(), &mut writer);
        assert!(written.errors.is_empty(), "{:?}", written.errors);
    }
}
