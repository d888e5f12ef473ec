//! Markers of USDT in an ELF file: places that the program's author named for tracers, each of them a `nop`.
//!
//! Each place has a note in the section `.note.stapsdt`, of the owner `stapsdt` and of type 3: three words as large as the file's
//! addresses (the place, where the section `.stapsdt.base` was when the note was written, and a semaphore or 0), then
//! provider, name and arguments, each with a zero behind it. A tool that moves a file's sections later, as prelinking does,
//! leaves notes as they are, so that what they say is off by as much as the base has moved. A semaphore is a number of 16
//! bits that the program looks at: others than 0 tell it that somebody listens.

use object::elf;

use crate::{
    elf::{Bytes, ElfError, Headers, Layout, Notes, Section},
    model::name::clean,
};

/// Most bytes read of a section of notes; a JVM's, which has more than most, are 50 KB.
const MAX_NOTES: u64 = 16 << 20;
/// Most places that are read of a file.
const MAX_PLACES: usize = 65_536;
/// Longest provider, name or list of arguments, bytes.
const MAX_TEXT: usize = 1024;

const SECTION: &[u8] = b".note.stapsdt";
const BASE: &[u8] = b".stapsdt.base";
const OWNER: &[u8] = b"stapsdt\0";
const KIND: u32 = 3;

/// What a file has of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// The markers, by provider and name.
    pub markers: Vec<Marker>,
    /// Notes that are not as they should be, so that their places are not known.
    pub damaged: u64,
}

/// A marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose it is: mostly the program's or library's name.
    pub provider: String,
    /// Its name among those of the provider.
    pub name: String,
    /// Where it is, by address; at least one place, none of them twice.
    pub places: Vec<Place>,
}

/// One of a marker's places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the instruction, ELF virtual.
    pub address: u64,
    /// Of the instruction, in the file; `None`: the file has no code there.
    pub offset: Option<u64>,
    /// What tells the program that somebody listens, if it asks.
    pub semaphore: Option<Semaphore>,
    /// Where its arguments are, as the note has it: `-4@%edi 8@-16(%rbp)`.
    pub arguments: String,
}

/// A place's semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semaphore {
    /// ELF virtual.
    pub address: u64,
    /// In the file; `None`: the file has no data there.
    pub offset: Option<u64>,
}

/// Reads all markers of a file.
///
/// # Errors
/// If the notes cannot be read, or are more than any file's.
pub fn read(bytes: Bytes<'_>, headers: &Headers, sections: &[Section]) -> Result<Markers, ElfError> {
    let base = sections.iter().find(|section| section.name == BASE).map(|section| section.address);
    let mut found: Vec<(String, String, Place)> = Vec::new();
    let mut damaged = 0;
    for section in sections.iter().filter(|s| s.kind == elf::SHT_NOTE && s.name == SECTION) {
        let data = bytes.read(section.offset, section.size, MAX_NOTES)?;
        let mut notes = Notes::new(headers.layout, &data, 4);
        for note in notes.by_ref().filter(|note| note.name == OWNER && note.kind == KIND) {
            if found.len() == MAX_PLACES {
                return Err(ElfError::Malformed("more markers than any program has"));
            }
            match Written::read(headers.layout, note.data) {
                Some(written) => found.push(written.resolved(headers, base)),
                None => damaged += 1,
            }
        }
        damaged += u64::from(!notes.is_whole());
    }
    // Of two notes of the same place, that with a semaphore.
    found.sort_by(|(provider, name, place), (other_provider, other_name, other)| {
        (provider, name, place.address, place.semaphore.is_none()).cmp(&(
            other_provider,
            other_name,
            other.address,
            other.semaphore.is_none(),
        ))
    });
    let mut markers: Vec<Marker> = Vec::new();
    for (provider, name, place) in found {
        match markers.last_mut().filter(|last| (&last.provider, &last.name) == (&provider, &name)) {
            Some(marker) if marker.places.last().is_some_and(|last| last.address == place.address) => {}
            Some(marker) => marker.places.push(place),
            None => markers.push(Marker { provider, name, places: vec![place] }),
        }
    }
    Ok(Markers { markers, damaged })
}

/// What a note says.
struct Written<'a> {
    address: u64,
    base: u64,
    semaphore: u64,
    provider: &'a [u8],
    name: &'a [u8],
    arguments: &'a [u8],
    layout: Layout,
}

impl<'a> Written<'a> {
    fn read(layout: Layout, data: &'a [u8]) -> Option<Self> {
        let word = if layout.is_64 { 8 } else { 4 };
        let at = |index: usize| layout.word(data, index * 4, index * 8);
        let mut texts = data.get(3 * word..)?.splitn(4, |&byte| byte == 0);
        // The last text ends in a zero too: what is behind it is the fourth part.
        let (provider, name, arguments) = (texts.next()?, texts.next()?, texts.next()?);
        texts.next()?;
        let is_sound = !provider.is_empty()
            && !name.is_empty()
            && [provider, name, arguments].iter().all(|text| text.len() <= MAX_TEXT);
        is_sound.then_some(Self {
            address: at(0),
            base: at(1),
            semaphore: at(2),
            provider,
            name,
            arguments,
            layout,
        })
    }

    fn resolved(&self, headers: &Headers, base: Option<u64>) -> (String, String, Place) {
        let moved = base.filter(|_| self.base != 0).map_or(0, |base| base.wrapping_sub(self.base));
        let now = |address: u64| {
            let address = address.wrapping_add(moved);
            if self.layout.is_64 { address } else { address & u64::from(u32::MAX) }
        };
        let address = now(self.address);
        let semaphore = (self.semaphore != 0).then(|| {
            let address = now(self.semaphore);
            Semaphore { address, offset: headers.offset_of_data(address) }
        });
        let arguments =
            if self.arguments.is_empty() { String::new() } else { clean(self.arguments).trim().to_owned() };
        let place = Place { address, offset: headers.offset_of_address(address), semaphore, arguments };
        (clean(self.provider), clean(self.name), place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::elf::read_headers;

    /// The bytes of a file of one or the other class.
    struct Built {
        is_64: bool,
        bytes: Vec<u8>,
    }

    impl Built {
        fn word(&mut self, value: u64) {
            if self.is_64 {
                self.bytes.extend(value.to_le_bytes());
            } else {
                self.bytes.extend((value as u32).to_le_bytes());
            }
        }

        fn half(&mut self, values: &[u16]) {
            self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }

        fn int(&mut self, values: &[u32]) {
            self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }

        fn note(&mut self, owner: &[u8], words: [u64; 3], texts: &[u8]) {
            let word = if self.is_64 { 8 } else { 4 };
            self.int(&[owner.len() as u32, (3 * word + texts.len()) as u32, KIND]);
            self.bytes.extend(owner);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
            words.into_iter().for_each(|value| self.word(value));
            self.bytes.extend(texts);
            self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        }

        fn segment(&mut self, flags: u32, offset: u64, address: u64, size: u64) {
            self.int(&[elf::PT_LOAD]);
            if self.is_64 {
                self.int(&[flags]);
            }
            [offset, address, address, size, size].into_iter().for_each(|value| self.word(value));
            if !self.is_64 {
                self.int(&[flags]);
            }
            self.word(0x1000);
        }

        fn section(&mut self, name: u32, kind: u32, address: u64, offset: u64, size: u64) {
            self.int(&[name, kind]);
            [0, address, offset, size].into_iter().for_each(|value| self.word(value));
            self.int(&[0, 0]);
            [4, 0].into_iter().for_each(|value| self.word(value));
        }
    }

    const NAMES: &[u8] = b"\0.note.stapsdt\0.stapsdt.base\0";
    /// Where `.stapsdt.base` is.
    const AT: u64 = 0x40_1800;

    /// A file with code at 0x401000, data at 0x402000 and these notes.
    fn file(is_64: bool, notes: &[(&[u8], [u64; 3], &[u8])]) -> Vec<u8> {
        let mut section = Built { is_64, bytes: Vec::new() };
        notes.iter().for_each(|(owner, words, texts)| section.note(owner, *words, texts));
        let (header, notes_at) = if is_64 { (64, 0x400) } else { (52, 0x400) };
        let names_at = notes_at + section.bytes.len().next_multiple_of(8);
        let sections_at = names_at + NAMES.len().next_multiple_of(8);
        let mut file = Built { is_64, bytes: Vec::new() };
        file.bytes.extend([0x7f, b'E', b'L', b'F', 1 + u8::from(is_64), 1, 1]);
        file.bytes.resize(16, 0);
        file.half(&[2, elf::EM_X86_64]);
        file.int(&[1]);
        file.word(0x40_1000);
        file.word(header);
        file.word(sections_at as u64);
        file.int(&[0]);
        let (program_header, section_header) = if is_64 { (56, 64) } else { (32, 40) };
        file.half(&[header as u16, program_header, 2, section_header, 4, 3]);
        file.segment(elf::PF_R | elf::PF_X, 0x1000, 0x40_1000, 0x1000);
        file.segment(elf::PF_R | elf::PF_W, 0x2000, 0x40_2000, 0x100);
        file.bytes.resize(notes_at, 0);
        file.bytes.extend(&section.bytes);
        file.bytes.resize(names_at, 0);
        file.bytes.extend(NAMES);
        file.bytes.resize(sections_at, 0);
        file.section(0, 0, 0, 0, 0);
        file.section(1, elf::SHT_NOTE, 0, notes_at as u64, section.bytes.len() as u64);
        file.section(15, elf::SHT_PROGBITS, AT, 0x1800, 1);
        file.section(0, elf::SHT_STRTAB, 0, names_at as u64, NAMES.len() as u64);
        file.bytes
    }

    fn markers(file: &[u8]) -> Result<Markers, ElfError> {
        let bytes = Bytes::Memory(file);
        let headers = read_headers(bytes)?;
        read(bytes, &headers, &headers.sections(bytes)?)
    }

    const NOTES: [(&[u8], [u64; 3], &[u8]); 6] = [
        (OWNER, [0x40_1010, AT, 0], b"app\0start\0-4@%edi 8@%rsi\0"),
        (OWNER, [0x40_1020, AT, 0x40_2010], b"app\0stop\0\0"),
        // Written when everything was 0x1000 further down.
        (OWNER, [0x40_0030, AT - 0x1000, 0x40_1012], b"app\0start\0\0"),
        (b"GNU\0", [0, 0, 0], b"app\0other\0\0"),
        (OWNER, [0x40_1010, AT, 0], b"app\0start\0-4@%edi 8@%rsi\0"),
        (OWNER, [0x50_0000, AT, 0x50_0000], b"a\x1b[31m\0nowhere\0\0"),
    ];

    #[test]
    fn places_of_a_marker_are_put_together() {
        for is_64 in [true, false] {
            let found = markers(&file(is_64, &NOTES)).unwrap();
            let names: Vec<_> =
                found.markers.iter().map(|m| (m.provider.as_str(), m.name.as_str())).collect();
            assert_eq!(names, [(r"a\x1b[31m", "nowhere"), ("app", "start"), ("app", "stop")]);
            let place = |address, offset, semaphore: Option<(u64, Option<u64>)>, arguments: &str| Place {
                address,
                offset,
                semaphore: semaphore.map(|(address, offset)| Semaphore { address, offset }),
                arguments: arguments.to_owned(),
            };
            let nowhere = place(0x50_0000, None, Some((0x50_0000, None)), "");
            assert_eq!(found.markers[0].places, [nowhere]);
            assert_eq!(
                found.markers[1].places,
                [
                    place(0x40_1010, Some(0x1010), None, "-4@%edi 8@%rsi"),
                    place(0x40_1030, Some(0x1030), Some((0x40_2012, Some(0x2012))), ""),
                ]
            );
            let stop = place(0x40_1020, Some(0x1020), Some((0x40_2010, Some(0x2010))), "");
            assert_eq!((&found.markers[2].places, found.damaged), (&vec![stop], 0));
        }
    }

    #[test]
    fn notes_that_are_cut_off_are_counted() {
        let long = [b"a\0b\0".as_slice(), &[b'x'; MAX_TEXT + 1], b"\0"].concat();
        let damaged: [&[u8]; 6] = [b"", b"app\0", b"app\0start\0", b"app\0start\0x", b"\0start\0\0", &long];
        let notes: Vec<_> = damaged.iter().map(|texts| (OWNER, [0x40_1010, AT, 0], *texts)).collect();
        assert_eq!(markers(&file(true, &notes)).unwrap(), Markers { markers: vec![], damaged: 6 });
        // One that reaches out of its section.
        let mut cut = file(true, &NOTES[..1]);
        cut[0x404] = 0xff;
        assert_eq!(markers(&cut).unwrap(), Markers { markers: vec![], damaged: 1 });
    }

    #[test]
    fn a_file_has_so_many_at_most() {
        let note = (OWNER, [0x40_1010, AT, 0], b"a\0b\0\0".as_slice());
        assert!(markers(&file(false, &vec![note; MAX_PLACES])).is_ok());
        let error = markers(&file(false, &vec![note; MAX_PLACES + 1])).unwrap_err();
        assert!(error.to_string().contains("more markers"), "{error}");
    }

    proptest! {
        #[test]
        fn mutated_files_are_read_without_panic(
            is_64: bool,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
            len: Option<prop::sample::Index>,
        ) {
            let mut bytes = file(is_64, &NOTES);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // The first byte that is cut off.
            bytes.truncate(len.map_or(usize::MAX, |len| len.index(bytes.len())));
            if let Ok(found) = markers(&bytes) {
                let places = found.markers.iter().flat_map(|marker| &marker.places);
                prop_assert!(places.count() <= NOTES.len() * 2);
                let is_sound = |m: &Marker| {
                    !m.places.is_empty()
                        && !m.name.contains('\u{1b}')
                        && m.places.is_sorted_by(|a, b| a.address < b.address)
                };
                prop_assert!(found.markers.iter().all(is_sound));
                let is_before = |a: &Marker, b: &Marker| (&a.provider, &a.name) < (&b.provider, &b.name);
                prop_assert!(found.markers.is_sorted_by(is_before));
            }
        }
    }
}
