//! HotSpot's compressed numbers (`UNSIGNED5`): 1 to 5 bytes for 32 bits, least significant first.
//!
//! Source: share/utilities/unsigned5.hpp (share/code/compressedStream.cpp before JDK 20). A byte below `L` ends the
//! number, one from `L` on says that another follows; each further one counts 64 times as much. From JDK 20 on
//! (JDK-8292758) bytes are one higher, so that 0 never occurs.

/// Numbers in a row of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    bytes: &'a [u8],
    base: u8,
}

impl<'a> Stream<'a> {
    /// Numbers from the first byte on; `base` is the least byte, 0 or 1.
    pub const fn new(bytes: &'a [u8], base: u8) -> Self {
        Self { bytes, base }
    }

    /// Number of bytes left.
    pub const fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next byte as it is.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    /// The next number. `None`: the bytes end, or are none.
    pub fn number(&mut self) -> Option<u32> {
        /// Bytes below this (plus the base) are a number's last: 256 less 64 for the high ones, less the base.
        const LOW: u32 = 192;
        let mut sum = 0u32;
        for index in 0..5 {
            let digit = u32::from(self.byte()?.checked_sub(self.base)?);
            sum = sum.wrapping_add(digit << (6 * index));
            if digit < LOW - u32::from(self.base) || index == 4 {
                break;
            }
        }
        Some(sum)
    }

    /// The next number with a sign: 0, -1, 1, -2 ... are 0, 1, 2, 3.
    pub fn signed(&mut self) -> Option<i32> {
        let number = self.number()?;
        Some((number >> 1) as i32 ^ -((number & 1) as i32))
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `UNSIGNED5::write_uint` (JDK 20) and `CompressedWriteStream::write_int_mb` (before), for tests.
    pub fn encode(mut number: u32, base: u8, out: &mut Vec<u8>) {
        let low = 192 - u32::from(base);
        for index in 0..5 {
            if number < low || index == 4 {
                out.push(number as u8 + base);
                return;
            }
            number -= low;
            out.push((low + number % 64) as u8 + base);
            number /= 64;
        }
    }

    fn decode(bytes: &[u8], base: u8) -> Option<u32> {
        Stream::new(bytes, base).number()
    }

    #[test]
    fn known_encodings() {
        // The examples of compressedStream.hpp's comment: 0..191 are themselves, then two bytes.
        assert_eq!(decode(&[0], 0), Some(0));
        assert_eq!(decode(&[191], 0), Some(191));
        assert_eq!(decode(&[192, 0], 0), Some(192));
        assert_eq!(decode(&[255, 191], 0), Some(255 + 191 * 64));
        assert_eq!(decode(&[192, 192, 0], 0), Some(192 + 192 * 64));
        assert_eq!(decode(&[1], 1), Some(0));
        assert_eq!(decode(&[191], 1), Some(190));
        assert_eq!(decode(&[192, 1], 1), Some(191));
        assert_eq!(decode(&[0], 1), None, "0 occurs in no number of the later encoding");
        assert_eq!(decode(&[], 0), None);
        assert_eq!(decode(&[200], 0), None, "cut off");
        let mut stream = Stream::new(&[0, 1, 2, 3], 0);
        assert_eq!([(); 4].map(|()| stream.signed()), [Some(0), Some(-1), Some(1), Some(-2)]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u32, base in 0u8..2) {
            let mut bytes = Vec::new();
            encode(number, base, &mut bytes);
            bytes.push(7);
            let mut stream = Stream::new(&bytes, base);
            prop_assert_eq!(stream.number(), Some(number));
            prop_assert_eq!(stream.byte(), Some(7));
        }

        #[test]
        fn anything_is_read_without_panic(bytes: Vec<u8>, base in 0u8..2) {
            let mut stream = Stream::new(&bytes, base);
            while stream.signed().is_some() {}
        }
    }
}
