//! What can be hooked in a file: its markers (`usdt:PATH[:PATTERN]`) and its functions (`uprobe:PATH[:PATTERN]`).

use std::{fs::File, io, path::Path};

use serde::Serialize;

use super::{Row, glob, matches};
use crate::{
    cli::{
        error::Failure,
        near::near,
        uprobe::{file_of, refused},
        usdt,
    },
    elf::{self, Bytes},
    model::name::clean,
    probe::uprobe::{MARKER_PREFIX, PREFIXES},
    symbolize::{functions, markers::Marker},
};

/// One of a marker's places.
#[derive(Debug, Serialize)]
pub(super) struct PlaceRow {
    /// ELF virtual, hexadecimal.
    address: String,
    /// Where its arguments are, as the note has it.
    arguments: String,
    /// Whether the program looks whether somebody listens.
    semaphore: bool,
}

/// What is asked for.
pub(super) struct Asked<'a> {
    prefix: &'static str,
    /// Path and pattern.
    rest: &'a str,
}

impl<'a> Asked<'a> {
    /// What a pattern asks for, if it is about a file.
    pub fn of(pattern: &'a str) -> Option<Self> {
        [MARKER_PREFIX, PREFIXES[0].0].into_iter().find_map(|prefix| {
            let rest = pattern.strip_prefix(prefix).filter(|rest| !rest.is_empty() && *rest != "*")?;
            Some(Self { prefix, rest })
        })
    }

    /// The rows of it, and what there is to say about them. `process`: whose file it is.
    pub fn rows(&self, process: Option<u32>) -> Result<(Vec<Row>, Option<String>), Failure> {
        let usage = |what: &str| refused(&format!("{}{}", self.prefix, self.rest), what);
        let (file, path, pattern) = self.open(process).map_err(|error| usage(&error.to_string()))?;
        let event = |name: &str| format!("{}{}:{name}", self.prefix, clean(path.as_bytes()));
        let unreadable = |error: elf::ElfError| usage(&format!("the file cannot be read: {error}"));
        let wanted = |name: &str| {
            let provider = name.split(':').next().unwrap_or(name);
            pattern.is_none_or(|p| matches(p, name) || glob(p.as_bytes(), provider.as_bytes()))
        };
        let (mut rows, names, note): (Vec<Row>, Vec<String>, _) = if self.prefix == MARKER_PREFIX {
            let found = usdt::read(&file).map_err(unreadable)?;
            let name = |marker: &Marker| format!("{}:{}", marker.provider, marker.name);
            let markers = found.markers.iter().filter(|marker| wanted(&name(marker)));
            let rows = markers.map(|marker| row(event(&name(marker)), marker)).collect();
            let note = (found.damaged != 0).then(|| {
                format!("{} notes of markers are damaged: what they tell is missing", found.damaged)
            });
            (rows, found.markers.iter().map(name).collect(), note)
        } else {
            let names = all_functions(&file).map_err(unreadable)?;
            let rows = names
                .iter()
                .filter(|name| wanted(name))
                .map(|name| Row::hits(event(&clean(name.as_bytes())), "function"));
            (rows.collect(), names, None)
        };
        if rows.is_empty() {
            let what = if self.prefix == MARKER_PREFIX { "markers" } else { "names of functions" };
            if names.is_empty() {
                let note = note.map_or(String::new(), |note| format!(" ({note})"));
                return Err(usage(&format!("the file has no {what}{note}")));
            }
            let near: Vec<String> =
                near(pattern.unwrap_or(""), names.iter().map(|name| name.rsplit(':').next().unwrap_or(name)))
                    .into_iter()
                    .map(|name| clean(name.as_bytes()))
                    .collect();
            let failure = usage(&format!("none of the file's {} {what} matches", names.len()));
            return Err(if near.is_empty() {
                failure
            } else {
                failure.mend(format!("near: {}", near.join(", ")))
            });
        }
        rows.sort_by(|a, b| a.event.cmp(&b.event));
        Ok((rows, note))
    }

    /// The file, its path and what of it is asked for. A path may have colons, and so may a pattern: the longest path that is
    /// a file is meant.
    fn open(&self, process: Option<u32>) -> io::Result<(File, &'a str, Option<&'a str>)> {
        let mut path = self.rest;
        loop {
            let pattern = self.rest.get(path.len() + 1..);
            let opened = file_of(Path::new(path), process);
            match (opened, path.rsplit_once(':')) {
                (Ok(file), _) => return Ok((file, path, pattern)),
                (Err(error), None) => return Err(error),
                (Err(_), Some((shorter, _))) => path = shorter,
            }
        }
    }
}

/// All names of functions of a file, sorted.
fn all_functions(file: &File) -> Result<Vec<String>, elf::ElfError> {
    let bytes = Bytes::File(file);
    let headers = elf::read_headers(bytes)?;
    // No function has that name, so that all others are told.
    Ok(functions::named(bytes, &headers, &headers.sections(bytes)?, "")?.others)
}

/// All places of a marker.
pub(super) fn place_rows(marker: &Marker) -> impl Iterator<Item = PlaceRow> {
    marker.places.iter().map(|place| PlaceRow {
        address: format!("{:#x}", place.address),
        arguments: place.arguments.clone(),
        semaphore: place.semaphore.is_some(),
    })
}

fn row(event: String, marker: &Marker) -> Row {
    let places = &marker.places;
    let number = if let [_] = places[..] { "1 place".to_owned() } else { format!("{} places", places.len()) };
    let semaphore = if places.iter().any(|place| place.semaphore.is_some()) { ", semaphore" } else { "" };
    let mut arguments: Vec<&str> = places.iter().map(|place| place.arguments.as_str()).collect();
    arguments.dedup();
    let arguments = match arguments[..] {
        [] | [""] => String::new(),
        _ => format!(", arguments {}", arguments.join(" | ")),
    };
    let rows = place_rows(marker).collect();
    Row {
        summary: Some(format!("{number}{semaphore}{arguments}")),
        places: Some(rows),
        ..Row::hits(event, "marker")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::markers::Place;

    fn rows(pattern: &str) -> Result<(Vec<Row>, Option<String>), String> {
        let asked = Asked::of(pattern).expect("it is about a file");
        asked.rows(None).map_err(|error| error.to_string())
    }

    #[test]
    fn functions_of_a_file_are_found_by_a_pattern() {
        let (found, note) = rows("uprobe:/proc/self/exe:*all_functions*").unwrap();
        assert!(
            found.iter().all(|row| row.event.starts_with("uprobe:/proc/self/exe:") && row.kind == "function")
        );
        assert!(!found.is_empty() && note.is_none());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (pattern, part) in [
            ("usdt:/none/such", "No such file"),
            ("usdt:/none/such:a:b", "No such file"),
            ("usdt:/dev/null", "not a regular file"),
            ("usdt:/proc/self/exe", "the file has no markers"),
            ("uprobe:/proc/self/exe:profiler-none-such", "matches"),
            ("uprobe:/proc/self/status", "not an ELF file"),
        ] {
            let error = rows(pattern).unwrap_err();
            assert!(error.contains(part), "{pattern}: {error}");
        }
        assert!(
            ["usdt:", "usdt:*", "usdt", "tracepoint:/x"].iter().all(|pattern| Asked::of(pattern).is_none())
        );
    }

    #[test]
    fn arguments_are_told_once_if_they_are_the_same_everywhere() {
        let place = |arguments: &str| Place {
            address: 16,
            offset: Some(16),
            semaphore: None,
            arguments: arguments.to_owned(),
        };
        let summary = |arguments: &[&str]| {
            let places = arguments.iter().map(|arguments| place(arguments)).collect();
            row(String::new(), &Marker { provider: "p".into(), name: "n".into(), places }).summary.unwrap()
        };
        assert_eq!(summary(&[""]), "1 place");
        assert_eq!(summary(&["-4@%edi", "-4@%edi"]), "2 places, arguments -4@%edi");
        assert_eq!(summary(&["-4@%edi", "8@$1"]), "2 places, arguments -4@%edi | 8@$1");
    }
}
