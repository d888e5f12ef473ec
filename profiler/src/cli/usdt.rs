//! `-e usdt:PATH:PROVIDER:NAME`: from words to the places of a marker in a file.
//!
//! The path is as that of `-e uprobe:...`. Provider and name are those of the file's notes, as `profiler list usdt:PATH` shows
//! them.

use std::{fs::File, path::Path, sync::Arc};

use profiler_common::sample::MAX_HOOKS;

use super::{
    error::Failure,
    near::near,
    uprobe::{file_of, refused},
};
use crate::{
    elf::{self, Bytes, ElfError},
    model::name::clean,
    probe::{
        Chosen, Event, Part,
        uprobe::{Asked, MARKER_PREFIX, MAX_PLACES, Place},
    },
    symbolize::markers::{self, Marker, Markers},
};

/// Most providers that are told where there is none of a name.
const MOST_PROVIDERS: usize = 12;

/// The event that `text`, what follows the prefix, names. `process`: whose files they are. `place`: how many hooks were
/// named before.
pub fn resolve(text: &str, process: Option<u32>, place: usize) -> Result<Chosen, Failure> {
    let usage = |what: &str| refused(&format!("-e {MARKER_PREFIX}{text}"), what);
    // Provider and name have no colon, a path may have.
    let words = text.rsplit_once(':').and_then(|(rest, name)| {
        let (path, provider) = rest.rsplit_once(':')?;
        Some((path, provider, name))
    });
    let (path, provider, name) = words
        .filter(|(path, provider, name)| !path.is_empty() && !provider.is_empty() && !name.is_empty())
        .ok_or_else(|| {
            usage("no path, provider and name").mend(
                "write it usdt:PATH:PROVIDER:NAME; `profiler list usdt:PATH` shows the markers of a file",
            )
        })?;
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage(&message).mend("record the others by themselves"));
    }
    let file = file_of(Path::new(path), process).map_err(|error| usage(&error.to_string()))?;
    let markers =
        read(&file).map_err(|error| usage(&format!("the file's markers cannot be read: {error}")))?;
    let marker = find(&markers, provider, name).map_err(|(what, mend)| {
        let failure = usage(&what);
        if mend.is_empty() { failure } else { failure.mend(mend) }
    })?;
    let places = places(marker).map_err(|what| usage(&what))?;
    let name = format!("{MARKER_PREFIX}{}:{provider}:{name}", clean(path.as_bytes()));
    let asked = Asked { name, file: Arc::new(file), places, returns: false };
    Ok(Chosen { event: Event::Usdt(place as u8), part: Part::Uprobe(asked) })
}

/// The markers of a file.
pub(super) fn read(file: &File) -> Result<Markers, ElfError> {
    let bytes = Bytes::File(file);
    let headers = elf::read_headers(bytes)?;
    let sections = headers.sections(bytes)?;
    markers::read(bytes, &headers, &sections)
}

/// The marker of that name, or why there is none and what mends it.
fn find<'a>(found: &'a Markers, provider: &str, name: &str) -> Result<&'a Marker, (String, String)> {
    let markers = &found.markers;
    if let Some(marker) = markers.iter().find(|m| m.provider == provider && m.name == name) {
        return Ok(marker);
    }
    let damaged =
        if found.damaged == 0 { String::new() } else { format!(" ({} notes are damaged)", found.damaged) };
    if markers.is_empty() {
        return Err((format!("the file has no markers{damaged}"), String::new()));
    }
    let of_provider: Vec<&str> =
        markers.iter().filter(|m| m.provider == provider).map(|m| m.name.as_str()).collect();
    if of_provider.is_empty() {
        let mut providers: Vec<&str> = markers.iter().map(|m| m.provider.as_str()).collect();
        providers.dedup();
        let more = providers.len().saturating_sub(MOST_PROVIDERS);
        providers.truncate(MOST_PROVIDERS);
        let more = if more == 0 { String::new() } else { format!(" and {more} others") };
        let mend = format!("its providers: {}{more}", providers.join(", "));
        return Err((format!("the file has no markers of that provider{damaged}"), mend));
    }
    let near = near(name, of_provider.iter().copied());
    let mend = if near.is_empty() {
        format!("`profiler list usdt:PATH:{provider}` shows its {} markers", of_provider.len())
    } else {
        format!("near: {}", near.join(", "))
    };
    Err((format!("the provider has no marker of that name{damaged}"), mend))
}

/// Where in the file the marker is.
fn places(marker: &Marker) -> Result<Vec<Place>, String> {
    let number = marker.places.len();
    if number > MAX_PLACES {
        return Err(format!("the marker has {number} places, more than {MAX_PLACES}"));
    }
    let place = |place: &markers::Place| {
        let offset = place
            .offset
            .ok_or_else(|| format!("the file has no code at {:#x}, where a note says so", place.address))?;
        let semaphore = place.semaphore.map(|semaphore| {
            let missing =
                || format!("the file has no data at {:#x}, the marker's semaphore", semaphore.address);
            semaphore.offset.ok_or_else(missing)
        });
        Ok(Place { offset, semaphore: semaphore.transpose()? })
    };
    marker.places.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::error::Exit, symbolize::markers::Semaphore};

    fn marker(provider: &str, name: &str, places: usize) -> Marker {
        let place = |at: usize| markers::Place {
            address: at as u64,
            offset: Some(at as u64),
            semaphore: None,
            arguments: String::new(),
        };
        Marker { provider: provider.into(), name: name.into(), places: (0..places).map(place).collect() }
    }

    #[test]
    fn a_marker_is_found_or_what_is_there_is_told() {
        let found = Markers {
            markers: vec![
                marker("a", "gc__begin", 1),
                marker("a", "gc__end", 1),
                marker("b", "gc__begin", 2),
            ],
            damaged: 0,
        };
        assert_eq!(find(&found, "b", "gc__begin").map(|m| m.places.len()), Ok(2));
        let told = |provider, name| find(&found, provider, name).unwrap_err().1;
        assert_eq!(told("a", "gc-begin"), "near: gc__begin");
        assert_eq!(told("a", "zzzzzzzz"), "`profiler list usdt:PATH:a` shows its 2 markers");
        assert_eq!(told("c", "gc__begin"), "its providers: a, b");
        let none = find(&Markers { markers: vec![], damaged: 2 }, "a", "b").map(|_| ()).unwrap_err();
        assert_eq!(none, ("the file has no markers (2 notes are damaged)".to_owned(), String::new()));
    }

    #[test]
    fn places_are_all_of_them_or_none() {
        assert_eq!(places(&marker("a", "b", MAX_PLACES)).map(|places| places.len()), Ok(MAX_PLACES));
        let error = places(&marker("a", "b", MAX_PLACES + 1)).unwrap_err();
        assert!(error.contains("257 places, more than 256"), "{error}");
        let mut odd = marker("a", "b", 2);
        odd.places[1].semaphore = Some(Semaphore { address: 0x123, offset: None });
        assert!(places(&odd).unwrap_err().contains("no data at 0x123"));
        odd.places[0].offset = None;
        assert!(places(&odd).unwrap_err().contains("no code at 0x0"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, part) in [
            ("/bin/sh", "no path, provider and name"),
            ("/bin/sh:a", "no path, provider and name"),
            ("/bin/sh::a", "no path, provider and name"),
            ("/none/such:a:b", "No such file"),
            ("/dev/null:a:b", "not a regular file"),
            ("/proc/self/exe:a:b", "the file has no markers"),
            ("/proc/self/status:a:b", "cannot be read: not an ELF file"),
        ] {
            let error = resolve(text, None, 0).unwrap_err();
            assert!(error.exit == Exit::Usage && error.message.contains(part), "{text}: {error}");
        }
        let error = resolve("/bin/sh:a:b", None, MAX_HOOKS).unwrap_err();
        assert!(error.message.contains("4 events at most"), "{error}");
    }
}
