//! Tracepoints of this kernel and the fields of their records, from tracefs (Documentation/trace/events.rst).
//!
//! Where tracefs is not mounted, it is opened without being mounted anywhere (fsmount(2), Linux 5.2): no one else sees it,
//! and it is gone with this process.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{file, fs as mounted};

/// Most fields read of a tracepoint; the kernel's largest have some dozens.
const MAX_FIELDS: usize = 512;

/// Most tracepoints of a kernel that are listed, and most categories.
const MAX_NAMES: usize = 32 * 1024;

/// Bytes at the start of a record that are not its own: programs find the registers there instead of what the format says
/// (`perf_trace_run_bpf_submit`, kernel/events/core.c).
pub const COMMON_BYTES: u32 = 8;

/// tracefs, wherever it is.
pub struct Tracefs {
    root: PathBuf,
    _mount: Option<OwnedFd>,
}

/// A tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// What perf_event_open(2) calls it.
    pub id: u64,
    /// The fields of its records, in their order.
    pub fields: Vec<Field>,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Its type as C has it.
    pub type_name: String,
    /// From the start of the record, bytes.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Whether it has a sign.
    pub signed: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer, a flag, an enumeration or an address.
    Integer,
    /// An array, of characters or of anything else.
    Array,
    /// Text or an array of any length: the field says where.
    Dynamic,
    /// A structure.
    Structure,
    /// One of those that all tracepoints have, which programs cannot read.
    Common,
}

impl Kind {
    /// In words, with article.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Integer => "an integer",
            Self::Array => "an array",
            Self::Dynamic => "text or an array of any length",
            Self::Structure => "a structure",
            Self::Common => "overwritten before a program sees it",
        }
    }
}

/// A failure to read tracefs.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// It is not mounted, and cannot be opened without.
    #[error("tracefs is not mounted, and cannot be opened otherwise: {0}")]
    NotMounted(#[source] io::Error),
    /// A file or directory of it.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No such category or tracepoint.
    #[error("no such tracepoint")]
    NotFound,
    /// A format file that is none.
    #[error("{path}: not understood: {what}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What of it.
        what: &'static str,
    },
}

impl Tracefs {
    /// Finds it where it is mounted, or opens it.
    ///
    /// # Errors
    /// [`TracefsError::NotMounted`].
    pub fn open() -> Result<Self, TracefsError> {
        let mounts = mounted::mounts();
        if let Some(mount) = mounted::find(&mounts, "tracefs") {
            return Ok(Self { root: mount.point.clone(), _mount: None });
        }
        let mount = own_mount().map_err(|errno| TracefsError::NotMounted(errno.into()))?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Ok(Self { root, _mount: Some(mount) })
    }

    /// Whether it is mounted somewhere.
    pub const fn is_mounted(&self) -> bool {
        self._mount.is_none()
    }

    /// The categories, sorted.
    ///
    /// # Errors
    /// [`TracefsError::Read`].
    pub fn categories(&self) -> Result<Vec<String>, TracefsError> {
        self.directories("events")
    }

    /// The tracepoints of a category, sorted; none if there is no such category.
    ///
    /// # Errors
    /// [`TracefsError::Read`].
    pub fn names(&self, category: &str) -> Result<Vec<String>, TracefsError> {
        if !is_name(category) {
            return Ok(Vec::new());
        }
        match self.directories(&format!("events/{category}")) {
            Err(TracefsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            names => names,
        }
    }

    fn directories(&self, path: &str) -> Result<Vec<String>, TracefsError> {
        let path = self.root.join(path);
        let failed = |source| TracefsError::Read { path: path.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)?.take(MAX_NAMES) {
            let entry = entry.map_err(failed)?;
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_directory && is_name(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A tracepoint.
    ///
    /// # Errors
    /// Any but [`TracefsError::NotMounted`].
    pub fn tracepoint(&self, category: &str, name: &str) -> Result<Tracepoint, TracefsError> {
        if !is_name(category) || !is_name(name) {
            return Err(TracefsError::NotFound);
        }
        let path = self.root.join("events").join(category).join(name).join("format");
        let text = match file::read_text(&path, file::SMALL) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(TracefsError::NotFound),
            Err(source) => return Err(TracefsError::Read { path, source }),
        };
        parse(&text).map_err(|what| TracefsError::Format { path, what })
    }
}

fn own_mount() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let nothing_else = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, nothing_else)
}

/// Whether it can be the name of a category or tracepoint; none leads out of the directory.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Reads a format file.
fn parse(text: &str) -> Result<Tracepoint, &'static str> {
    let id = file::field(text, "ID").and_then(|id| id.parse().ok()).ok_or("no id")?;
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("field:"));
    let fields: Option<Vec<_>> = lines.take(MAX_FIELDS).map(field).collect();
    Ok(Tracepoint { id, fields: fields.ok_or("a field")? })
}

/// `unsigned short common_type; offset:0; size:2; signed:0;`
fn field(line: &str) -> Option<Field> {
    let mut parts = line.split(';').map(str::trim);
    let declaration = parts.next()?;
    let (mut offset, mut size, mut signed) = (None, None, None);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", value)) => offset = Some(value.parse().ok()?),
            Some(("size", value)) => size = Some(value.parse().ok()?),
            Some(("signed", value)) => signed = Some(value != "0"),
            _ => {}
        }
    }
    let (offset, size) = (offset?, size?);
    // The name is the last word, an array's length stands behind it; a pointer's star may touch it.
    let (before, array) = declaration.split_once('[').map_or((declaration, None), |(a, b)| (a, Some(b)));
    let is_dynamic = ["__data_loc", "__rel_loc"].iter().any(|word| declaration.starts_with(word));
    let named = if is_dynamic { declaration } else { before }.trim_end();
    let start = named.rfind([' ', '*', ']']).map_or(0, |at| at + 1);
    let name = &named[start..];
    let mut type_name = named[..start].trim_end().to_owned();
    if let Some(length) = array.filter(|_| !is_dynamic) {
        type_name = format!("{type_name}[{length}");
    }
    let kind = match size {
        _ if offset < COMMON_BYTES => Kind::Common,
        _ if is_dynamic => Kind::Dynamic,
        _ if array.is_some() => Kind::Array,
        1 | 2 | 4 | 8 => Kind::Integer,
        _ => Kind::Structure,
    };
    if !is_name(name) {
        return None;
    }
    Some(Field { name: name.to_owned(), type_name, offset, size, signed: signed.unwrap_or(false), kind })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMAT: &str = "name: sched_process_fork\nID: 300\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:__data_loc char[] parent_comm;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t parent_pid;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:char child_comm[16];\toffset:16;\tsize:16;\tsigned:0;\n\
        \tfield:const char * buf;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:void *at;\toffset:40;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long args[6];\toffset:48;\tsize:48;\tsigned:0;\n\
        \tfield:struct pair pair;\toffset:96;\tsize:16;\tsigned:0;\n\n\
        print fmt: \"comm=%s\", __get_str(parent_comm)\n";

    #[test]
    fn fields_are_read_with_their_kinds() {
        let tracepoint = parse(FORMAT).unwrap();
        assert_eq!(tracepoint.id, 300);
        let fields: Vec<_> = tracepoint
            .fields
            .iter()
            .map(|f| (f.name.as_str(), f.type_name.as_str(), f.offset, f.size, f.signed, f.kind))
            .collect();
        assert_eq!(
            fields,
            [
                ("common_type", "unsigned short", 0, 2, false, Kind::Common),
                ("common_pid", "int", 4, 4, true, Kind::Common),
                ("parent_comm", "__data_loc char[]", 8, 4, false, Kind::Dynamic),
                ("parent_pid", "pid_t", 12, 4, true, Kind::Integer),
                ("child_comm", "char[16]", 16, 16, false, Kind::Array),
                ("buf", "const char *", 32, 8, false, Kind::Integer),
                ("at", "void *", 40, 8, false, Kind::Integer),
                ("args", "unsigned long[6]", 48, 48, false, Kind::Array),
                ("pair", "struct pair", 96, 16, false, Kind::Structure),
            ]
        );
    }

    #[test]
    fn what_is_no_format_is_refused() {
        assert_eq!(parse("name: x\n"), Err("no id"));
        assert_eq!(parse("ID: 1\n\tfield:int x;\toffset:8;\n"), Err("a field"));
        assert_eq!(parse("ID: 1\n\tfield:;\toffset:8;\tsize:4;\n"), Err("a field"));
        assert_eq!(parse("ID: 1\n").map(|t| t.fields.len()), Ok(0));
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for name in ["", ".", "..", "a/b", "../sched", "a b", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
        assert!(is_name("sys_enter_write") && is_name("iwlwifi-msg"));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(field:|ID: |int |\\[|\\]|;|offset:|size:|[0-9]{1,12}|\n|\t|.){0,80}") {
            _ = parse(&text);
        }
    }
}
