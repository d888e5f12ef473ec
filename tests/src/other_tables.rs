//! JDKs whose tables nobody knows: copies of real ones, made of links, in whose `libjvm.so` a field has another name. It is a JVM in
//! all other ways.

use std::{
    fs,
    fs::Permissions,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tempfile::TempDir;

/// A field that names cannot be told without, and what it is called instead.
const FIELD: [&[u8]; 2] = [b"_compile_id\0", b"_compile_ix\0"];
/// What is copied, because it finds other files by its own path: the launcher.
const LAUNCHER: &str = "java";
const LIBRARY: &str = "libjvm.so";

/// Makes the copy of a JDK: `seen` is its directory as this process sees it, `home` as programs do that run in its root.
///
/// # Panics
/// If that is not possible.
pub fn copy(seen: &Path, home: &Path, shared: &str) -> TempDir {
    let copy = tempfile::tempdir_in(shared).expect("temporary files can be made");
    let mut changed = 0;
    fill(seen, home, copy.path(), &mut changed);
    assert!(changed > 0, "{}: its library has no such field", home.display());
    copy
}

fn fill(seen: &Path, home: &Path, to: &Path, changed: &mut usize) {
    // Of any user.
    fs::set_permissions(to, Permissions::from_mode(0o755)).expect("it is ours");
    for entry in fs::read_dir(seen).unwrap_or_else(|e| panic!("{}: {e}", seen.display())) {
        let entry = entry.expect("a JDK can be listed");
        let name = entry.file_name();
        let (seen, home, to) = (entry.path(), home.join(&name), to.join(&name));
        let kind = entry.file_type().expect("its entries have types");
        if kind.is_dir() {
            fs::create_dir(&to).expect("a directory can be made");
            fill(&seen, &home, &to, changed);
        } else if kind.is_file() && name == LIBRARY {
            *changed += change(&seen, &to);
        } else if kind.is_symlink() && name == LAUNCHER {
            // To another one in the JDK (8), which is copied too.
            symlink(fs::read_link(&seen).expect("it is a link"), &to).expect("a link can be made");
        } else if kind.is_file() && name == LAUNCHER {
            fs::copy(&seen, &to).expect("a launcher can be copied");
        } else {
            symlink(&home, &to).expect("a link can be made");
        }
    }
}

/// Gives the field another name. How often it is there.
fn change(library: &Path, to: &Path) -> usize {
    let mut bytes = fs::read(library).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
    let [name, other] = FIELD;
    let places: Vec<usize> = places_of(&bytes, name);
    for &at in &places {
        bytes[at..at + other.len()].copy_from_slice(other);
    }
    fs::write(to, bytes).expect("a library can be copied");
    fs::set_permissions(to, Permissions::from_mode(0o755)).expect("it is ours");
    places.len()
}

fn places_of(bytes: &[u8], word: &[u8]) -> Vec<usize> {
    let begins = bytes.iter().enumerate().filter(|(_, byte)| **byte == word[0]).map(|(at, _)| at);
    begins.filter(|&at| bytes[at..].starts_with(word)).collect()
}
