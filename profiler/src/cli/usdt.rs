//! `-e usdt:PATH:PROVIDER:NAME` and `-e usdt:PATH:PROVIDER:BEGIN..END`: from words to the places of a marker in a file, or of
//! two.
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
        between::{self, DOTS, NUMBER},
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
                "write it usdt:PATH:PROVIDER:NAME or usdt:PATH:PROVIDER:BEGIN..END; `profiler list usdt:PATH` shows the \
                 markers of a file",
            )
        })?;
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage(&message).mend("record the others by themselves"));
    }
    let file = file_of(Path::new(path), process).map_err(|error| usage(&error.to_string()))?;
    let markers =
        read(&file).map_err(|error| usage(&format!("the file's markers cannot be read: {error}")))?;
    let failure = |Refused { what, mend }| {
        let failure = usage(&what);
        if mend.is_empty() { failure } else { failure.mend(mend) }
    };
    let file = Arc::new(file);
    let full = format!("{MARKER_PREFIX}{}:{provider}:{name}", clean(path.as_bytes()));
    if let Some((begin, end)) = name.split_once(DOTS) {
        let (begins, ends) = pair(&markers, &file, provider, (begin, end)).map_err(failure)?;
        let asked = between::Asked { number: format!("{full}{NUMBER}"), name: full, begins, ends };
        return Ok(Chosen { event: Event::Between(place as u8), part: Part::Between(asked) });
    }
    let places = of_marker(&markers, &file, provider, name).map_err(failure)?;
    let asked = Asked { name: full, places, returns: false };
    Ok(Chosen { event: Event::Usdt(place as u8), part: Part::Uprobe(asked) })
}

/// Why there are no places, and what mends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub what: String,
    pub mend: String,
}

/// The places of a marker.
pub(super) fn of_marker(
    markers: &Markers,
    file: &Arc<File>,
    provider: &str,
    name: &str,
) -> Result<Vec<Place>, Refused> {
    let marker = find(markers, provider, name)?;
    places(marker, file).map_err(|what| Refused { what, mend: String::new() })
}

/// The places of two markers that begin and end a span.
pub(super) fn pair(
    markers: &Markers,
    file: &Arc<File>,
    provider: &str,
    (begin, end): (&str, &str),
) -> Result<(Vec<Place>, Vec<Place>), Refused> {
    let refused = |what: &str| {
        let mend = format!("write it usdt:PATH:{provider}:BEGIN{DOTS}END");
        Err(Refused { what: what.to_owned(), mend })
    };
    if begin.is_empty() || end.is_empty() {
        return refused("two markers are needed, one that begins and one that ends");
    }
    if begin == end {
        return refused("the same marker cannot begin and end");
    }
    let of = |name: &str| {
        let named = |Refused { what, mend }| Refused { what: format!("{name}: {what}"), mend };
        of_marker(markers, file, provider, name).map_err(named)
    };
    Ok((of(begin)?, of(end)?))
}

/// The markers of a file.
pub(super) fn read(file: &File) -> Result<Markers, ElfError> {
    let bytes = Bytes::File(file);
    let headers = elf::read_headers(bytes)?;
    let sections = headers.sections(bytes)?;
    markers::read(bytes, &headers, &sections)
}

/// The marker of that name, or why there is none and what mends it.
fn find<'a>(found: &'a Markers, provider: &str, name: &str) -> Result<&'a Marker, Refused> {
    let refused = |what: String, mend: String| Err(Refused { what, mend });
    let markers = &found.markers;
    if let Some(marker) = markers.iter().find(|m| m.provider == provider && m.name == name) {
        return Ok(marker);
    }
    let damaged =
        if found.damaged == 0 { String::new() } else { format!(" ({} notes are damaged)", found.damaged) };
    if markers.is_empty() {
        return refused(format!("the file has no markers{damaged}"), String::new());
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
        return refused(format!("the file has no markers of that provider{damaged}"), mend);
    }
    let near = near(name, of_provider.iter().copied());
    let mend = if near.is_empty() {
        format!("`profiler list usdt:PATH:{provider}` shows its {} markers", of_provider.len())
    } else {
        format!("near: {}", near.join(", "))
    };
    refused(format!("the provider has no marker of that name{damaged}"), mend)
}

/// Where in the file the marker is.
fn places(marker: &Marker, file: &Arc<File>) -> Result<Vec<Place>, String> {
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
        Ok(Place { file: Arc::clone(file), offset, semaphore: semaphore.transpose()? })
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

    fn file() -> Arc<File> {
        Arc::new(File::open("/proc/self/exe").unwrap())
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
        let told = |provider, name| find(&found, provider, name).unwrap_err().mend;
        assert_eq!(told("a", "gc-begin"), "near: gc__begin");
        assert_eq!(told("a", "zzzzzzzz"), "`profiler list usdt:PATH:a` shows its 2 markers");
        assert_eq!(told("c", "gc__begin"), "its providers: a, b");
        let none = find(&Markers { markers: vec![], damaged: 2 }, "a", "b").map(|_| ()).unwrap_err();
        let what = "the file has no markers (2 notes are damaged)".to_owned();
        assert_eq!(none, Refused { what, mend: String::new() });
    }

    #[test]
    fn a_span_has_two_markers() {
        let found = Markers {
            markers: vec![marker("a", "gc__begin", 1), marker("a", "gc__end", 2), marker("b", "other", 1)],
            damaged: 0,
        };
        let found = |begin, end| {
            pair(&found, &file(), "a", (begin, end))
                .map(|(begins, ends)| (begins.len(), ends.len()))
                .map_err(|refused| format!("{}; {}", refused.what, refused.mend))
        };
        assert_eq!(found("gc__begin", "gc__end"), Ok((1, 2)));
        for (begin, end, part) in [
            ("gc__begin", "gc__ends", "gc__ends: the provider has no marker of that name; near: gc__end"),
            ("other", "gc__end", "other: the provider has no marker"),
            ("gc__end", "gc__end", "the same marker"),
            ("", "gc__end", "two markers are needed"),
            ("gc__begin", "", "usdt:PATH:a:BEGIN..END"),
        ] {
            let error = found(begin, end).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn places_are_all_of_them_or_none() {
        let places = |marker: &Marker| places(marker, &file());
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
