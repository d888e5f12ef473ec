//! Reads a file's bytes and unpacks them if they are gzip, within bounds; and says what a file is that is no pprof.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::{
    DecodeError,
    limits::{MAX_BYTES, MAX_RATIO, UNPACKED_FREE_BYTES},
};

const GZIP: &[u8] = &[0x1f, 0x8b];

/// The unpacked bytes of a pprof file, which may be gzip or not.
///
/// # Errors
/// Reading failed, the file is empty, too large, truncated or corrupt, or evidently something else.
pub fn unpacked(mut reader: impl Read) -> Result<Vec<u8>, DecodeError> {
    let mut packed = Vec::new();
    let mut bounded = (&mut reader).take(MAX_BYTES + 1);
    bounded.read_to_end(&mut packed).map_err(DecodeError::Read)?;
    if packed.len() as u64 > MAX_BYTES {
        return Err(DecodeError::TooLarge { limit: MAX_BYTES });
    }
    if packed.is_empty() {
        return Err(DecodeError::Empty);
    }
    let data = if packed.starts_with(GZIP) { gunzip(&packed)? } else { packed };
    match other_kind(&data) {
        Some(kind) => Err(DecodeError::NotPprof(kind)),
        None => Ok(data),
    }
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let limit = (packed.len() as u64).saturating_mul(MAX_RATIO).clamp(UNPACKED_FREE_BYTES, MAX_BYTES);
    let mut data = Vec::new();
    MultiGzDecoder::new(packed).take(limit + 1).read_to_end(&mut data).map_err(|error| {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DecodeError::TruncatedGzip,
            _ => DecodeError::CorruptGzip(error),
        }
    })?;
    if data.len() as u64 > limit {
        return Err(DecodeError::TooLarge { limit });
    }
    Ok(data)
}

/// What the data is, if it certainly is no pprof file (whose first byte is a field key, in practice 0x0a).
fn other_kind(data: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 9] = [
        (b"\x7fELF", "it is an ELF file"),
        (b"PERFILE2", "it is a perf.data file"),
        (b"FLR\0", "it is a JFR recording"),
        (b"\x28\xb5\x2f\xfd", "it is zstd-compressed"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"\x1f\x8b", "it is gzip-compressed twice"),
        (b"<", "it is XML, SVG or HTML"),
        (b"{", "it is JSON"),
        (b"#!", "it is a script"),
    ];
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| data.starts_with(magic)) {
        return Some(kind);
    }
    let start = &data[..data.len().min(256)];
    let is_text = start.iter().all(|&b| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e));
    match data.first() {
        _ if data.iter().all(|&b| b == 0) => Some("it holds only zero bytes"),
        // A first line feed is also the key of field 1.
        Some(&first) if is_text && first != b'\n' => Some("it is text"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn says_what_a_file_is() {
        let text = |bytes: &[u8]| unpacked(bytes).unwrap_err().to_string();
        assert_eq!(text(b""), "it is empty");
        assert_eq!(text(b"\x7fELF\x02"), "not a pprof file: it is an ELF file");
        assert_eq!(text(b"a;b 3\n"), "not a pprof file: it is text");
        assert_eq!(text(&gzip(b"{\"a\":1}")), "not a pprof file: it is JSON");
        assert_eq!(text(&gzip(&gzip(b"x"))), "not a pprof file: it is gzip-compressed twice");
        assert_eq!(text(&[0; 4096]), "not a pprof file: it holds only zero bytes");
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        let packed = gzip(&[0x0a; 5000]);
        for end in 2..packed.len() {
            assert!(matches!(unpacked(&packed[..end]), Err(DecodeError::TruncatedGzip)), "cut at {end}");
        }
        let mut garbage = packed.clone();
        garbage.extend(b"tail");
        assert!(matches!(
            unpacked(&garbage[..]),
            Err(DecodeError::CorruptGzip(_) | DecodeError::TruncatedGzip)
        ));
        assert_eq!(unpacked(&packed[..]).unwrap(), [0x0a; 5000]);
    }

    #[test]
    fn a_bomb_is_refused_before_it_unpacks() {
        // 70 members of 1 MB of zeros each are 70 KB, which may unpack to the free 64 MiB only.
        let packed = gzip(&vec![0; 1_000_000]).repeat(70);
        assert!(matches!(unpacked(&packed[..]), Err(DecodeError::TooLarge { limit: UNPACKED_FREE_BYTES })));
    }
}
