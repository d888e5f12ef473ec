//! Separate debug files: by build id below `/usr/lib/debug`, or by the name in `.gnu_debuglink`.
//!
//! Searched on the host and in the root of a process that maps the file. A candidate is taken only if it belongs to
//! the file: the same build id, or, for files without one, the checksum that the link states.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use super::open::{self, Fingerprint};
use crate::elf::{self, Bytes, Headers, Section};

/// Where distributions install debug files.
pub const DEBUG_DIR: &str = "/usr/lib/debug";
/// Longest link name; file names are at most 255 bytes.
const MAX_LINK: u64 = 512;
/// Largest file whose checksum is computed.
const MAX_CHECKSUM_BYTES: u64 = 1 << 30;

/// The debug file that belongs to `file`, if one is installed.
///
/// `path` is where the process sees the file, `root` the root of such a process if it is not ours.
pub fn find(
    file: &File,
    headers: &Headers,
    sections: &[Section],
    path: &Path,
    root: Option<&OwnedFd>,
) -> Option<File> {
    let link = sections
        .iter()
        .find(|section| section.name == b".gnu_debuglink")
        .and_then(|section| read_link(file, headers, section));
    let own = Fingerprint::of(file).ok();
    for candidate in candidates(headers.build_id.as_deref(), link.as_ref(), path) {
        let opened =
            [root.map(|root| open::regular_in(root.as_fd(), &candidate)), Some(open::regular(&candidate))];
        for found in opened.into_iter().flatten().flatten() {
            if Fingerprint::of(&found).ok() != own && belongs(&found, headers, link.as_ref()) {
                return Some(found);
            }
        }
    }
    None
}

struct Link {
    name: PathBuf,
    checksum: u32,
}

fn read_link(file: &File, headers: &Headers, section: &Section) -> Option<Link> {
    let data = Bytes::File(file).read(section.offset, section.size, MAX_LINK).ok()?;
    let name_len = data.iter().position(|&b| b == 0)?;
    let name = Path::new(OsStr::from_bytes(&data[..name_len]));
    // A link is a bare name; one with directories could point anywhere.
    let name = (name.file_name() == Some(name.as_os_str())).then(|| name.to_path_buf())?;
    let at = (name_len + 1).next_multiple_of(4);
    data.get(at..at + 4)?;
    Some(Link { name, checksum: headers.layout.u32(&data, at) })
}

fn candidates(build_id: Option<&[u8]>, link: Option<&Link>, path: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    if let Some((first, rest)) = build_id.and_then(|id| id.split_first()).filter(|(_, rest)| !rest.is_empty())
    {
        out.push(PathBuf::from(format!("{DEBUG_DIR}/.build-id/{first:02x}/{}.debug", elf::hex(rest))));
    }
    if let (Some(link), Some(dir)) = (link, path.parent().filter(|dir| dir.is_absolute())) {
        out.push(dir.join(&link.name));
        out.push(dir.join(".debug").join(&link.name));
        if let Ok(relative) = dir.strip_prefix("/") {
            out.push(Path::new(DEBUG_DIR).join(relative).join(&link.name));
        }
    }
    out
}

fn belongs(candidate: &File, headers: &Headers, link: Option<&Link>) -> bool {
    let Ok(theirs) = elf::read_headers(Bytes::File(candidate)) else { return false };
    match (&headers.build_id, &theirs.build_id) {
        (Some(ours), Some(theirs)) => ours == theirs,
        (None, None) => link.is_some_and(|link| checksum(candidate).is_ok_and(|sum| sum == link.checksum)),
        _ => false,
    }
}

/// CRC-32 of a whole file, as in `.gnu_debuglink`.
fn checksum(file: &File) -> io::Result<u32> {
    if file.metadata()?.len() > MAX_CHECKSUM_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 256 << 10];
    let mut reader = file.take(MAX_CHECKSUM_BYTES);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(crc.sum()),
            len => crc.update(&buffer[..len]),
        }
    }
}
