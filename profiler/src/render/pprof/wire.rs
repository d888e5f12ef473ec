//! The outermost level of a protobuf message, field by field: what prost offers only for whole messages.
//!
//! Source: the protobuf encoding specification. A field is a varint key `number << 3 | wire type`, then its value.

use std::io::{self, Write};

use prost::Message;

/// Wire type of a varint.
const VARINT: u64 = 0;
/// Wire type of eight bytes.
const FIXED64: u64 = 1;
/// Wire type of a length and that many bytes.
const LENGTH_DELIMITED: u64 = 2;
/// Wire type of four bytes.
const FIXED32: u64 = 5;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number.
    Varint(u64),
    /// A string or an inner message.
    Bytes(&'a [u8]),
    /// Four or eight bytes; the pprof schema has none.
    Fixed,
}

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The data ends inside a field.
    #[error("the data ends inside a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a number is longer than 64 bits")]
    LongVarint,
    /// Field number 0 or an unknown wire type.
    #[error("a field key is invalid")]
    BadKey,
}

/// Iterates over (field number, value) of a message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of that message.
    pub const fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|&n| n != 0).ok_or(WireError::BadKey)?;
        let value = match key & 7 {
            VARINT => Value::Varint(self.varint()?),
            LENGTH_DELIMITED => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).map_err(|_| WireError::Truncated)?)?)
            }
            FIXED64 => self.take(8).map(|_| Value::Fixed)?,
            FIXED32 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(WireError::BadKey),
        };
        Ok((number, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::LongVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::LongVarint)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Numbers packed into the bytes of one field.
pub fn packed(bytes: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> {
    let mut rest = Fields(bytes);
    std::iter::from_fn(move || {
        if rest.0.is_empty() {
            return None;
        }
        let number = rest.varint();
        if number.is_err() {
            rest.0 = &[];
        }
        Some(number)
    })
}

/// Writes fields of an outer message.
pub struct FieldWriter<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> FieldWriter<W> {
    /// Writes to `out`, which should be buffered.
    pub const fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// An inner message.
    pub fn message(&mut self, number: u32, message: &impl Message) -> io::Result<()> {
        self.buffer.clear();
        self.key(number, LENGTH_DELIMITED);
        message.encode_length_delimited(&mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)
    }

    /// A string.
    pub fn string(&mut self, number: u32, text: &str) -> io::Result<()> {
        self.buffer.clear();
        self.key(number, LENGTH_DELIMITED);
        self.varint(text.len() as u64);
        self.out.write_all(&self.buffer)?;
        self.out.write_all(text.as_bytes())
    }

    /// A number (`int64`, not zig-zag).
    pub fn number(&mut self, number: u32, value: i64) -> io::Result<()> {
        self.buffer.clear();
        self.key(number, VARINT);
        self.varint(value.cast_unsigned());
        self.out.write_all(&self.buffer)
    }

    fn key(&mut self, number: u32, wire_type: u64) {
        self.varint(u64::from(number) << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_fields_are_told_apart() {
        fn last(bytes: &[u8]) -> Result<(u32, Value<'_>), WireError> {
            Fields::new(bytes).last().unwrap()
        }
        assert_eq!(last(&[0x0a, 5, b'a']), Err(WireError::Truncated));
        assert_eq!(last(&[0x80]), Err(WireError::Truncated));
        assert_eq!(last(&[0x02, 0]), Err(WireError::BadKey));
        assert_eq!(last(&[0x0b]), Err(WireError::BadKey));
        assert_eq!(last(&[0xff; 11]), Err(WireError::LongVarint));
        assert_eq!(
            last(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(WireError::LongVarint)
        );
        assert_eq!(last(&[0x0d, 1, 2, 3, 4]), Ok((1, Value::Fixed)));
    }

    proptest! {
        #[test]
        fn written_fields_are_read_back(number in 1u32..1 << 29, value: i64, text: String) {
            let mut writer = FieldWriter::new(Vec::new());
            writer.number(number, value).unwrap();
            writer.string(number, &text).unwrap();
            let bytes = writer.into_inner();
            let fields: Vec<_> = Fields::new(&bytes).map(Result::unwrap).collect();
            prop_assert_eq!(fields, vec![
                (number, Value::Varint(value.cast_unsigned())),
                (number, Value::Bytes(text.as_bytes())),
            ]);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
            prop_assert!(packed(&bytes).count() <= bytes.len());
        }
    }
}
